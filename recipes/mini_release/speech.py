"""Training a language model and an acoustic head from scratch on the codes of a codec.

Triples of one speaker: a stretch of one clip is the voice, another clip's text and codes are what
is to be said (arXiv 2603.25551, 3.1; the loss is on the second clip alone, and the hidden state is
dropped for a tenth of the frames, for guidance). Hours of speech are few, so four helps that cost
nothing at inference: variants of every clip (`codebank`), noise on the codes that are read, levels
of what was already said taken away now and then or drawn by the model itself, so that the voice is
read from where it is given (`rehearsal`), and one layer's attention taught to look at the character
that is being spoken.

Shapes: B batch, L positions, D width, K code books, N frames of a batch, C acoustic channels,
H heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.mini_release.guide import guide_loss, watch_attention
from recipes.mini_release.rehearsal import VoiceJudge, forget, misread, stretches, voice_distance
from recipes.mini_release.training import OptimiserSettings, RunSettings, apply_gradients, learners
from recipes.mini_release.triples import SpeechData, TripleSettings
from voxclone.device import pick_device
from voxclone.errors import ConfigError
from voxclone.release.params import Params
from voxclone.rng import step_generator
from voxclone.spec import SHIFT
from voxclone.train.checkpoint import TrainState
from voxclone.train.logging import Log
from voxclone.train.optim import build_optimizers
from voxclone.train.sequences import (
    Batch,
    Example,
    embed,
    flow_loss,
    length_of,
    scheduled_sampling,
    sequences,
)
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone
from voxclone.tts.prompt import PromptMaker

USUAL_LEVELS = 7
"""Levels of a channel that speech is mostly within: about one direction's unit to each side."""


class SpeechTraining(TripleSettings):
    """Values of one training of language model and acoustic head. `forgotten` is the share of
    examples in which some of the frames already said (a share drawn anew) lose their levels,
    `rehearsed` that of examples in which all of them have levels that the model draws. `heard` is
    the weight of the voice of `heard_items` drawn stretches of `heard_frames`; both draw with a
    guidance out of `guidance`, from the step `rehearse_from` on: before, there is nothing to
    hear."""

    run: RunSettings
    optimiser: OptimiserSettings = OptimiserSettings(lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    batch_positions: int = 5000
    batch_length: tuple[int, int] = (140, 260)
    drop_condition: float = 0.1
    flow_draws: int = 2
    level_noise: float = 0.1
    semantic_noise: float = 0.02
    forgotten: float = 0.0
    rehearsed: float = 0.0
    heard: float = 0.0
    rehearse_from: int = 0
    heard_items: int = 8
    heard_frames: int = 32
    guidance: tuple[float, float] = (1.0, 3.0)
    label_smoothing: float = 0.05
    flow_weight: float = 1.0
    guide_weight: float = 0.3
    guide_layer: int = 2
    guide_heads: int = 2
    evenness: float = 0.5
    dropout: float = 0.1


@dataclass
class SpeechTask:
    """A language model and an acoustic head in training; see `loop.Task`."""

    settings: SpeechTraining
    params: Params
    train: SpeechData
    valid: SpeechData
    prompts: PromptMaker
    backbone: Backbone
    head: AcousticHead
    state: TrainState
    judge: VoiceJudge | None = None

    @classmethod
    def create(
        cls,
        settings: SpeechTraining,
        params: Params,
        train: SpeechData,
        valid: SpeechData,
        prompts: PromptMaker,
        judge: VoiceJudge | None = None,
    ) -> "SpeechTask":
        """Fresh weights: normal, with 1/sqrt(fan-in) for matrices; rows of neighbouring levels
        begin as neighbours. The `judge` is needed where the weight of `heard` is not 0."""
        if settings.heard and judge is None:
            raise ConfigError("The weight `heard` needs a judge of voices.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.run.seed)
            # On a CPU the fused kernel takes longer than the products of such short sequences.
            fused = pick_device(settings.run.device).type == "cuda"
            backbone = Backbone(params, attention="sdpa" if fused else "eager")
            head = AcousticHead(params)
            nn.init.normal_(backbone.text_table.weight, std=0.3)
            size = 0.3 / params.codec.num_codebooks**0.5
            nn.init.normal_(backbone.audio_table.weight, std=size)
            order_levels(backbone, size)
            for name, weight in [*backbone.model.named_parameters(), *head.named_parameters()]:
                if weight.ndim == 2:
                    nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
                    if name.endswith(
                        ("o_proj.weight", "down_proj.weight", "wo.weight", "w2.weight")
                    ):
                        weight.data *= (2 * params.lm.n_layers) ** -0.5
        device = pick_device(settings.run.device)
        both = nn.ModuleList([backbone, head]).to(device)
        learners = build_optimizers(both, settings.optimiser)
        state = TrainState({"backbone": backbone, "head": head}, learners)
        if judge is not None:
            judge.codec.to(device)
            judge.voices.to(device)
        return cls(settings, params, train, valid, prompts, backbone, head, state, judge)

    def train_step(self, step: int) -> dict[str, Tensor]:
        settings = self.settings
        generator = step_generator(settings.run.seed, step)
        if not hasattr(self, "_weights_N"):
            self._weights_N = self.train.subset.weights(settings.evenness)
        low, high = settings.batch_length
        length = int(torch.randint(low, high + 1, (1,), generator=generator))
        examples, positions = [], 0
        while positions < settings.batch_positions:
            examples.append(self.train.draw(settings, generator, self._weights_N, length))
            positions += length_of(examples[-1])
        batch = self.sequences(examples)
        self.backbone.train()
        ready = step >= settings.rehearse_from
        share = settings.rehearsed if ready else 0.0
        losses = self._losses(batch, generator, share, heard=ready, noisy=True)
        total = (
            losses["loss/semantic"]
            + settings.flow_weight * losses["loss/flow"]
            + settings.guide_weight * losses["loss/guide"]
            + settings.heard * losses.get("loss/heard", torch.zeros(()))
        )
        total.backward()
        norm = apply_gradients(learners(self.state), settings.optimiser, step, settings.run.steps)
        return losses | {"other/grad_norm": norm}

    def validate(self, step: int, log: Log) -> dict[str, float]:
        """Losses on held-out speakers: with the right voice, with somebody else's, and with levels
        of the model's own drawing as what was said before."""
        self.backbone.eval()
        settings = self.settings
        generator = step_generator(settings.run.seed, 0, stream=1)
        weights_N = self.valid.subset.weights(1.0)
        examples = [self.valid.draw(settings, generator, weights_N) for _ in range(96)]
        figures: dict[str, float] = {}
        for name, shift, rehearsed in (("matched", 0, 0.0), ("shuffled", 7, 0.0), ("own", 0, 1.0)):
            rows: list[dict[str, Tensor]] = []
            for start in range(0, len(examples), 16):
                group = [
                    Example(
                        examples[(i + shift) % len(examples)].voice_TK,
                        examples[i].text_ids,
                        examples[i].target_TK,
                        examples[i].places_T,
                    )
                    for i in range(start, min(len(examples), start + 16))
                ]
                with torch.no_grad():
                    draws = step_generator(settings.run.seed, start, stream=2)
                    batch = self.sequences(group)
                    rows.append(self._losses(batch, draws, rehearsed, heard=True, noisy=False))
            for key in {key: None for row in rows for key in row}:
                known = [float(row[key]) for row in rows if key in row]
                figures[f"valid_{name}/{key.split('/')[1]}"] = sum(known) / len(known)
        self.backbone.train()
        return figures

    def sequences(self, examples: Sequence[Example]) -> Batch:
        """Examples as this model reads them."""
        device = next(self.head.parameters()).device
        return sequences(examples, self.prompts, self.params, device)

    def _losses(
        self,
        batch: Batch,
        generator: torch.Generator,
        rehearsed: float,
        *,
        heard: bool,
        noisy: bool,
    ) -> dict[str, Tensor]:
        settings = self.settings
        device = batch.ids_BL.device
        codes_BLK = batch.codes_BLK
        if noisy:
            codes_BLK = misread(
                codes_BLK,
                generator,
                params=self.params,
                levels=settings.level_noise,
                semantic=settings.semantic_noise,
            )
            codes_BLK = forget(batch, codes_BLK, generator, share=settings.forgotten)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.run.autocast):
            if rehearsed:
                codes_BLK = self._rehearsed(batch, codes_BLK, rehearsed, generator)
            layer = self.backbone.model.layers[settings.guide_layer]
            guided = watch_attention(layer, settings.guide_heads)
            embedded_BLD = embed(self.backbone, batch, codes_BLK)
            if noisy and settings.dropout:
                keep = torch.rand(embedded_BLD.shape, generator=generator).to(device)
                embedded_BLD = embedded_BLD * (keep > settings.dropout) / (1 - settings.dropout)
            hidden_BLD = self.backbone(embedded_BLD)
            hidden_ND = hidden_BLD[batch.item_N, batch.place_N]
            logits_NV = self.head.semantic_logits(hidden_ND)
            flow = flow_loss(
                self.head,
                hidden_ND,
                batch.target_NK,
                generator,
                draws=settings.flow_draws,
                dropped=settings.drop_condition if noisy else None,
            )
            extra = {}
            if heard and settings.heard and self.judge is not None:
                rows_IT = stretches(batch, settings.heard_items, settings.heard_frames, generator)
                guidance_I = self._guidance(len(rows_IT), generator)
                if len(rows_IT) > 1:
                    extra["loss/heard"] = voice_distance(
                        self.judge, batch, hidden_ND, rows_IT, guidance_I, self.head, generator
                    )
        logits_NV = self.head.mask_semantic(logits_NV)[:, : SHIFT + self.head.semantic_size]
        logits_NV = logits_NV[:, 1:]  # EMPTY_AUDIO is never said
        target_N = batch.target_NK[:, 0] - 1
        smoothing = settings.label_smoothing if noisy else 0.0
        semantic = F.cross_entropy(logits_NV, target_N, label_smoothing=smoothing)
        hit = (logits_NV.argmax(dim=-1) == target_N).float().mean()
        guide = guide_loss(guided(), batch)
        return {
            "loss/semantic": semantic,
            "loss/flow": flow,
            "loss/guide": guide,
            "codes/semantic_hit": hit,
        } | extra

    @torch.no_grad()
    def _rehearsed(
        self, batch: Batch, codes_BLK: Tensor, share: float, generator: torch.Generator
    ) -> Tensor:
        """Codes in which a share of the items have levels of the model's own drawing."""
        items = len(batch.ids_BL)
        chosen_B = torch.rand(items, generator=generator) < share
        guidance_B = (self._guidance(items, generator) * chosen_B).to(codes_BLK.device)
        if not bool(chosen_B.any()):
            return codes_BLK
        hidden_BLD = torch.zeros(*codes_BLK.shape[:2], self.params.lm.dim, device=codes_BLK.device)
        chosen_B = chosen_B.to(codes_BLK.device)
        hidden_BLD[chosen_B] = self.backbone(
            embed(self.backbone, batch, codes_BLK)[chosen_B]
        ).float()
        hidden_ND = hidden_BLD[batch.item_N, batch.place_N]
        noise_NC = torch.randn(len(hidden_ND), self.head.channels, generator=generator)
        noise_NC = noise_NC.to(hidden_ND.device)
        return scheduled_sampling(batch, codes_BLK, hidden_ND, guidance_B, self.head, noise_NC)

    def _guidance(self, count: int, generator: torch.Generator) -> Tensor:
        low, high = self.settings.guidance
        return low + (high - low) * torch.rand(count, generator=generator)


@torch.no_grad()
def order_levels(backbone: Backbone, size: float) -> None:
    """Half of what tells the levels of a channel apart is one direction, along which they lie in
    order: the sum over channels then holds the latent itself, which is what a voice is read from.
    The other half stays as drawn, so that a row still has one set of codes."""
    levels = backbone.params.audio.acoustic_codebook_size
    table_VD = backbone.audio_table.weight
    height_Q1 = torch.linspace(-1, 1, levels)[:, None] * levels / USUAL_LEVELS
    for offset in backbone.offsets_K[1:].tolist():
        rows = slice(offset + SHIFT, offset + SHIFT + levels)
        direction_D = torch.randn(table_VD.shape[1]) * size
        table_VD[rows] = 0.7 * table_VD[rows] + 0.7 * height_Q1 * direction_D
