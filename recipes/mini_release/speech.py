"""Training of the mini release's language model and acoustic head on codes.

The loss is on the codes of the target alone (arXiv 2603.25551, 3.1); the hidden state is dropped
for a tenth of the frames, for guidance. Hours of speech are few, so four helps that cost nothing at
inference: code noise; history dropout (levels already spoken are left out, so that the voice is
read from where it is given); scheduled sampling of levels in two passes (arXiv 1906.07651); and
attention guidance, which teaches two heads to look at the character that is spoken.

Shapes: B batch, L positions, D width, K codebooks, C acoustic channels, N frames, R items.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from recipes.mini_release import optim
from recipes.mini_release.corruption import add_code_noise, choose, drop_history, frames_of
from recipes.mini_release.crops import device_generator
from recipes.mini_release.graph import GraphedStep, Tensors
from recipes.mini_release.language_model import attention_loss, forward, fresh_model
from recipes.mini_release.speech_data import ExampleSettings, SpeechBatches
from voxclone.codec.quantizer import to_levels, to_values
from voxclone.config import Settings
from voxclone.device import autocast
from voxclone.release.params import Params
from voxclone.spec import SHIFT
from voxclone.train.checkpoint import TrainState
from voxclone.train.logging import Log
from voxclone.train.loop import GRAD_NORM, RunSettings
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone

TRAIN, VALIDATION = range(2)
"""Streams of random numbers."""
VALIDATION_BATCHES = 4
GUIDED_LAYER, GUIDED_HEADS = 2, 2


class SpeechTraining(Settings):
    """Values of one training of language model and acoustic head. Levels are moved by one in the
    share `level_noise`, semantic codes replaced in `semantic_noise`. `history_dropout` is the share
    of items that lose levels already spoken. From the share `sampling_from` of the steps on, a
    share `sampled_items` of the items read levels that the model draws, on `sampled_frames` frames
    of each, at a guidance out of `guidance`. `flow_frames` frames of a batch have a flow loss."""

    run: RunSettings
    optimizer: optim.OptimizerSettings
    examples: ExampleSettings = ExampleSettings()
    level_noise: float = 0.1
    semantic_noise: float = 0.02
    history_dropout: float = 0.4
    embedding_dropout: float = 0.1
    sampling_from: float = 0.5
    sampled_items: float = 0.25
    sampled_frames: int = 56
    guidance: tuple[float, float] = (1.0, 3.0)
    drop_condition: float = 0.1
    label_smoothing: float = 0.05
    flow_frames: int = 6144
    flow_weight: float = 60.0
    attention_weight: float = 0.3


@dataclass
class SpeechTask:
    """A language model and an acoustic head in training; see `loop.Task`. `measure` gives further
    metrics of a validation."""

    settings: SpeechTraining
    params: Params
    train: SpeechBatches
    valid: SpeechBatches
    backbone: Backbone
    head: AcousticHead
    device: torch.device
    workers: int
    measure: Callable[[Backbone, AcousticHead, int], dict[str, float]]
    state: TrainState
    _steps: dict[tuple[int, bool], GraphedStep] = field(default_factory=dict)
    _batches: Iterator[Any] | None = None
    _next_step: int = -1

    @classmethod
    def create(
        cls,
        settings: SpeechTraining,
        params: Params,
        train: SpeechBatches,
        valid: SpeechBatches,
        device: torch.device,
        measure: Callable[[Backbone, AcousticHead, int], dict[str, float]],
        workers: int = 0,
    ) -> "SpeechTask":
        """Fresh weights; `workers` processes make batches ahead of time."""
        backbone, head = fresh_model(params, settings.run.seed)
        modules = {"backbone": backbone.to(device), "head": head.to(device)}
        named = {
            f"{prefix}.{name}": parameter
            for prefix, module in modules.items()
            for name, parameter in module.named_parameters()
        }
        state = TrainState(dict(modules), optim.build_optimizers(named, settings.optimizer))
        return cls(settings, params, train, valid, backbone, head, device, workers, measure, state)

    def train_step(self, step: int) -> Tensors:
        settings = self.settings
        steps, rates = settings.run.steps, settings.optimizer
        share = optim.rate_share(step, steps, rates, rates.warmup_steps)
        optim.set_rates(self.state.optimizers.values(), share)
        shape, batch = self._batch(step)
        sampled = step >= settings.sampling_from * steps
        if (shape, sampled) not in self._steps:
            self._steps[shape, sampled] = GraphedStep(partial(self._step, sampled), self.state)
        inputs = batch | self.draw(batch, device_generator(
            settings.run.seed, step, TRAIN, self.device
        ))  # fmt: skip
        with self.state.updating():
            return self._steps[shape, sampled](inputs)

    @torch.no_grad()
    def validate(self, step: int, log: Log) -> dict[str, float]:
        """Losses on held-out speakers, and what `measure` finds."""
        sums: dict[str, float] = {}
        for number in range(VALIDATION_BATCHES):
            _, batch = self.valid[number]
            batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
            generator = device_generator(self.settings.run.seed, number, VALIDATION, self.device)
            inputs = batch | self.draw(batch, generator)
            for name, loss in self._losses(inputs, inputs["codes"].long(), noisy=False).items():
                key = f"valid/{name.split('/')[1]}"
                sums[key] = sums.get(key, 0.0) + float(loss) / VALIDATION_BATCHES
        return sums | self.measure(self.backbone, self.head, step)

    def _batch(self, step: int) -> tuple[int, Tensors]:
        """The number of the shape of a step's batch, and the batch on the device."""
        if self._batches is None or step != self._next_step:
            loader = DataLoader(
                self.train,
                batch_size=None,
                sampler=range(step, self.settings.run.steps),
                num_workers=self.workers,
                prefetch_factor=4 if self.workers else None,
                pin_memory=self.device.type == "cuda",
            )
            self._batches = iter(loader)
        self._next_step = step + 1
        shape, batch = next(self._batches)
        return shape, {n: t.to(self.device, non_blocking=True) for n, t in batch.items()}

    def draw(self, batch: Tensors, generator: torch.Generator) -> Tensors:
        """The random numbers of a step: uniform ones, normal ones (`noise`), and codes."""
        items, length, books = batch["codes"].shape
        settings, device, width = self.settings, self.device, self.params.lm.dim
        rows = max(1, round(settings.sampled_items * items))
        frames = min(settings.flow_frames, items * length)
        sampled = min(rows * settings.sampled_frames, rows * length)
        uniform = {
            "noise_draw": (items, length, books), "noise_sign": (items, length, books),
            "history_item": (items, 1), "history_share": (items, 1), "history": (items, length),
            "dropout": (items, length, width), "flow_key": (items * length,),
            "flow_time": (frames,), "flow_drop": (frames, 1), "flow_jitter": (frames, books - 1),
            "sampled_key": (rows * length,), "sampled_guidance": (rows, 1),
        }  # fmt: skip
        normal = {"flow_noise": (frames, books - 1), "sampled_noise": (sampled, books - 1)}
        inputs = {
            name: torch.rand(shape, generator=generator, device=device)
            for name, shape in uniform.items()
        }
        for name, shape in normal.items():
            inputs[name] = torch.randn(shape, generator=generator, device=device)
        size = self.params.audio.semantic_codebook_size
        inputs["other_code"] = torch.randint(
            size, (items, length), generator=generator, device=device
        )
        return inputs

    def _step(self, sampled: bool, inputs: Tensors) -> Tensors:
        settings = self.settings
        optimizers = list(self.state.optimizers.values())
        optim.clear_gradients(optimizers)
        with autocast(self.device, enabled=settings.run.autocast, cache_enabled=False):
            codes_BLK = add_code_noise(
                inputs, self.head.levels, level_share=settings.level_noise,
                semantic_share=settings.semantic_noise,
            )  # fmt: skip
            codes_BLK = drop_history(inputs, codes_BLK, items_share=settings.history_dropout)
            if sampled:
                codes_BLK = self._sample_levels(inputs, codes_BLK)
            losses = self._losses(inputs, codes_BLK, noisy=True)
        total = (
            losses["loss/semantic"]
            + settings.flow_weight * losses["loss/flow"]
            + settings.attention_weight * losses["loss/attention"]
        )
        total.backward()
        norm = optim.clip_gradients(optimizers)
        for optimizer in optimizers:
            optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()} | {GRAD_NORM: norm}

    def _embed(self, inputs: Tensors, codes_BLK: Tensor) -> Tensor:
        return torch.where(
            inputs["is_code"][..., None],
            self.backbone.embed_codes(codes_BLK),
            self.backbone.text_table(inputs["ids"].long()),
        )

    def _losses(self, inputs: Tensors, codes_BLK: Tensor, *, noisy: bool) -> Tensors:
        settings = self.settings
        embedded_BLD = self._embed(inputs, codes_BLK)
        if noisy:
            kept_BLD = inputs["dropout"] > settings.embedding_dropout
            embedded_BLD = embedded_BLD * kept_BLD / (1 - settings.embedding_dropout)
        hidden_BLD, attention_BHLL = forward(
            self.backbone, embedded_BLD, GUIDED_LAYER, GUIDED_HEADS
        )
        predicts_BL, target_BL = inputs["predicts"], inputs["target"][..., 0].long()
        logits_BLV = self.head.semantic_logits(hidden_BLD)
        # EMPTY_AUDIO is never spoken, and the last rows are padding.
        logits_BLV = logits_BLV[..., 1 : SHIFT + self.head.semantic_size]
        goal_BL = torch.where(predicts_BL, target_BL - 1, 0)
        smoothing = settings.label_smoothing if noisy else 0.0
        entropy_BL = F.cross_entropy(
            logits_BLV.flatten(0, 1), goal_BL.flatten(), label_smoothing=smoothing, reduction="none"
        ).view_as(goal_BL)
        count = predicts_BL.sum()
        hit_BL = (logits_BLV.argmax(dim=-1) == goal_BL) & predicts_BL
        character_BL = inputs["character"].long()
        return {
            "loss/semantic": (entropy_BL * predicts_BL).sum() / count,
            "loss/flow": self._flow_loss(inputs, hidden_BLD, noisy=noisy),
            "loss/attention": attention_loss(attention_BHLL, character_BL, predicts_BL),
            "codes/semantic_hit": hit_BL.sum() / count,
        }

    def _flow_loss(self, inputs: Tensors, hidden_BLD: Tensor, *, noisy: bool) -> Tensor:
        """Mean squared error of the levels (-1 to 1) that the velocity x1 - x0 at a random time
        points to, (1 - t)^2 times that of the velocity, over random frames. Every time has the same
        best velocity either way; but at late times x0 cannot be known, and the velocity's own error
        is then noise that outweighs what is learned of voices. In training, levels are spread over
        the intervals that they stand for, so that the flow learns no comb."""
        head, noise_NC = self.head, inputs["flow_noise"]
        at_N, chosen_N = choose(frames_of(inputs), inputs["flow_key"], len(noise_NC))
        hidden_ND = hidden_BLD.flatten(0, 1)[at_N]
        level_NC = (inputs["target"].flatten(0, 1)[at_N, 1:].long() - SHIFT).clamp(min=0)
        data_NC = to_values(level_NC, head.levels)
        if noisy:
            hidden_ND = hidden_ND * (inputs["flow_drop"] >= self.settings.drop_condition)
            data_NC = data_NC + (inputs["flow_jitter"] - 0.5) * 2 / (head.levels - 1)
        time_N = inputs["flow_time"]
        error_NC = head.error(data_NC, noise_NC, time_N, head.llm_projection(hidden_ND))
        error_N = ((1 - time_N[:, None]) * error_NC).square().mean(dim=-1)
        return (error_N * chosen_N).sum() / chosen_N.sum().clamp(min=1)

    @torch.no_grad()
    def _sample_levels(self, inputs: Tensors, codes_BLK: Tensor) -> Tensor:
        """Codes in which the last items have, on some frames, levels that the model draws from its
        states. Semantic codes stay."""
        items = len(inputs["sampled_guidance"])
        part = {n: inputs[n][-items:] for n in ("ids", "is_code", "predicts", "target")}
        own_RLK = codes_BLK[-items:]
        hidden_RLD, _ = forward(
            self.backbone, self._embed(part, own_RLK), GUIDED_LAYER, GUIDED_HEADS
        )
        noise_NC = inputs["sampled_noise"]
        at_N, chosen_N = choose(frames_of(part), inputs["sampled_key"], len(noise_NC))
        low, high = self.settings.guidance
        guidance_R1 = low + (high - low) * inputs["sampled_guidance"]
        guidance_N1 = guidance_R1.expand(-1, own_RLK.shape[1]).flatten()[at_N, None]
        hidden_ND = hidden_RLD.flatten(0, 1)[at_N].float()
        value_NC = self.head.flow(hidden_ND, noise_NC, guidance_N1)
        level_NC = to_levels(value_NC, self.head.levels).round().long() + SHIFT
        drawn_PK = F.pad(own_RLK.flatten(0, 1), (0, 0, 0, 1))
        next_N = at_N + 1  # a frame follows what predicts it
        drawn_PK[next_N, 1:] = torch.where(chosen_N[:, None] > 0, level_NC, drawn_PK[next_N, 1:])
        return torch.cat([codes_BLK[:-items], drawn_PK[:-1].view_as(own_RLK)])
