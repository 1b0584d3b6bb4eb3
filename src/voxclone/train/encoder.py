"""Phase 1: recover the withheld encoder against the frozen decoder and codebook.

    main -> prepare -> build -> fit (train_step, validate) -> save

Three kinds of material, each with losses of its own:
- *pairs*: codes that the release made, decoded; the encoder must give the codes back;
- *real speech* through encoder, quantizer and frozen decoder, held near the statistics of genuine
  codes, near the states of an ASR model, and (`bridge`) near the codes that belong to its states;
- *labeled speech*, whose words are known: the language model and the encoder together have labeled
  it (`pseudo_labels`). As a second stage, what the model says in the encoder's voices must be
  distinguished from other speakers (`speaker_loss`).

A step may be done in micro-batches, by several processes and one after another (`distributed`):
what is drawn for an item depends on seed, step and item alone, and every loss is that of the whole
batch.

How each loss is made is in `objective`. Every optimizer of these steps is called in `train_step`;
the bridge, which makes labels and is frozen before the first step, has a loop of its own
(`data.bridge`).
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.optim import Optimizer

from voxclone import checkpoint
from voxclone.codec.initialization import initialize, match_codebook
from voxclone.codec.model import Codec, Encoder
from voxclone.device import pick_device, precision_note
from voxclone.errors import EXIT_OK, TrainingError
from voxclone.release.encoder_file import save_encoder
from voxclone.release.release import Release
from voxclone.rng import step_generator
from voxclone.spec import CODEC
from voxclone.train import adversarial, distributed
from voxclone.train.adversarial import MultiResolutionSTFTDiscriminator
from voxclone.train.asr_distillation import build_distillation
from voxclone.train.batch import MicroBatch, Prefetcher, StepBatch, micro_batches
from voxclone.train.checkpoint import SPEECH, TrainState, require_shared
from voxclone.train.encoder_config import EncoderConfig, StepValues
from voxclone.train.logging import SECONDS, Log
from voxclone.train.loop import (
    CHECKPOINTS,
    EXIT_INTERRUPTED,
    GRAD_NORM,
    Metrics,
    Outcome,
    fit,
    require_success,
)
from voxclone.train.losses import balance, weighted_sum
from voxclone.train.material import (
    Inputs,
    Material,
    check,
    gather,
    left_context,
    require_same_speech,
)
from voxclone.train.monitor import check_speech, choose_best, collapse, log_speech, preset_metrics
from voxclone.train.objective import SPEAKER, Objective
from voxclone.train.optim import (
    adamw,
    build_optimizers,
    clip_gradients,
    parameters_of,
    set_learning_rate,
    update_ema,
)
from voxclone.train.pseudo_labels import PseudoLabels

ENCODER_FILE, BEST_FILE = "encoder.safetensors", "best.safetensors"
ENCODER, AUXILIARY = ("adamw", "muon", "distillation"), ("discriminator",)
"""Optimizers by name: of the encoder and the projection to its teacher, whose gradients are clipped
together; and of auxiliary networks, each by itself."""
BALANCER, BEST = "balancer", "best"
"""Among the values of a state: the balancer's averages, and what is known of the best encoder."""
OWN_SEEDS = 10**9
"""A codec trained from scratch with the same seed may be the one to recover: beginning where its
encoder began would be no recovery."""
NO_MEMORY = ("can't allocate memory", "not enough memory")
"""What PyTorch says of the CPU's, on Linux and elsewhere."""


def main(
    config: EncoderConfig,
    inputs: Inputs,
    out: Path,
    console: Console,
    *,
    resume: bool,
    changed: bool = False,
    on_step: Callable[[int], None] | None = None,
) -> int:
    """Train as the config says, in the folder `out`; returns the exit code. Under torchrun all
    processes train together, and the first writes and prints. `on_step` is called with the number
    of steps that are done.

    Raises TrainingError if the device has too little memory or too many steps in a row cannot be
    done, and QualityError if the encoder collapses (`monitor.collapse`).
    """
    device = pick_device(inputs.device)
    distributed.start(device)
    console = console if distributed.is_rank0() else Console(quiet=True)
    values = config.model_dump(mode="json")
    try:
        with memory_errors(config.step_values, device):
            require_shared(out)
            with distributed.rank0_first():
                if not resume:  # before speech is packed over it
                    checkpoint.require_none(out / CHECKPOINTS, "--out")
                release = Release.open(inputs.model)
                training = prepare(config, inputs, device, out, console)
            note = precision_note(device, wanted=config.run.autocast)
            if note is not None:
                console.print(note)
            speech = training.objective.material.speech
            require_same_speech(speech, inputs.speech)

            def keep(step: int, metrics: Metrics) -> None:
                best = choose_best(training.state.values.get(BEST), metrics, step)
                if best["step"] == step:
                    training.save(out / BEST_FILE, release, values, step, metrics)
                # Not before it is written: an error saves the state.
                training.state.values[BEST] = best

            outcome = fit(
                training, config.run, out, resume=resume, changed=changed,
                config=values | {"model": inputs.model, SPEECH: speech.identity()}, console=console,
                keep=keep, collapse_check=training.collapse_check, on_step=on_step,
            )  # fmt: skip
            require_success(outcome, out)
            path = out / ENCODER_FILE
            training.save(path, release, values, outcome.step, outcome.metrics)
            return report(outcome, path, training.state.values.get(BEST), console)
    except distributed.RaisedByRank0 as other:
        return other.exit_code
    finally:
        distributed.stop()


@contextmanager
def memory_errors(values: StepValues, device: torch.device) -> Iterator[None]:
    """Turn a device's lack of memory into a TrainingError with the values to lower."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or any(x in str(error) for x in NO_MEMORY):
            raise no_memory(values, device, error) from None
        raise


def prepare(
    config: EncoderConfig, inputs: Inputs, device: torch.device, out: Path, console: Console
) -> "EncoderTraining":
    """Gather what the config asks for, and build what learns."""
    return build(config, gather(config, inputs, device, out, console), device)


def build(config: EncoderConfig, material: Material, device: torch.device) -> "EncoderTraining":
    """A fresh encoder by the seed, or one with the weights of `material.init`, beside the frozen
    decoder and quantizer of the release; and what learns beside it. Raises ConfigError where
    something is missing, or where processes cannot share the batches."""
    values, optimizer = config.step_values, config.optimizer
    check(values, material.codec.config, material)
    weights, seed = values.weights, values.seed
    teacher, sizes = material.teacher, material.codec.config
    discriminator, distillation, labels = None, None, None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = fresh_codec(material.codec, OWN_SEEDS + seed).to(device)
        encoder = codec.require_encoder()
        for side in (encoder, codec.decoder):
            side.gradient_checkpointing = config.run.gradient_checkpointing
        if config.match_codebook:
            match_codebook(encoder, codec.quantizer.semantic_codebook)
        if material.init is not None:
            encoder.load_state_dict(material.init.state_dict())
        state = TrainState({"encoder": encoder}, build_optimizers(encoder, optimizer))
        if weights["feature_matching"]:
            channels = config.discriminators.channels
            discriminator = MultiResolutionSTFTDiscriminator(channels).to(device)
            state.modules["discriminator"] = discriminator
            state.optimizers["discriminator"] = adamw(
                discriminator.parameters(), optimizer, adversarial.LEARNING_RATE
            )
        if weights["asr_distillation"] and teacher is not None:
            distillation = build_distillation(
                teacher, material.speech.corpus, codec, left_context(values.left_context, sizes)
            )
            state.modules["distillation"] = distillation.module.to(device)
            state.optimizers["distillation"] = adamw(distillation.module.parameters(), optimizer)
    if config.run.ema:
        state.modules["encoder_ema"] = copy.deepcopy(encoder).requires_grad_(False).eval()
    if weights["pseudo_label"] and material.language_model and material.labels:
        labels = PseudoLabels(
            material.language_model, material.speech, material.labels,
            values.label_steps, config.pseudo_labels.clips, seed, values.speaker_balance,
        )  # fmt: skip
    objective = Objective(values, material, codec, discriminator, distillation, labels)
    return EncoderTraining(config, objective, state)


def fresh_codec(release: Codec, seed: int) -> Codec:
    """The frozen decoder and quantizer of a release beside a fresh encoder."""
    codec = Codec(release.config)
    initialize(codec, seed)
    codec.decoder.load_state_dict(release.decoder.state_dict())
    codec.quantizer.load_state_dict(release.quantizer.state_dict())
    codec.decoder.requires_grad_(False)
    return codec


@dataclass
class EncoderTraining:
    """A training in progress; see `loop.Task`."""

    config: EncoderConfig
    objective: Objective
    state: TrainState

    def __post_init__(self) -> None:
        self.batches = Prefetcher(self.draw, self.config.run.steps)

    def draw(self, step: int) -> list[tuple[MicroBatch, StepBatch]]:
        """The micro-batches of a step."""
        micro = micro_batches(self.objective.values.micro_batches)
        return [(each, self.objective.draw(step, each)) for each in micro]

    def train_step(self, step: int) -> dict[str, Tensor]:
        """One step; returns metrics. All gradients are there before the first optimizer steps, so
        that an error leaves the state of the step before."""
        run, state, objective = self.config.run, self.state, self.objective
        if objective.labels is not None and objective.labels.due(step):
            with self.evaluation():
                objective.labels.renew(step, objective.codec)
            self.batches.clear()  # their labeled crops are of the labels before
        weights, averages = objective.weights_at(step), state.values.get(BALANCER, {})
        rows: list[dict[str, Tensor]] = []
        for micro, drawn in self.batches.take(step):
            batch = drawn.to(objective.device)
            with objective.autocast():
                pairs = objective.encode_pairs(batch.pairs)
                speech = objective.encode_speech(batch.speech)
                labeled = objective.encode_labeled(batch.labeled)
                losses = objective.pair_losses(pairs)
                losses |= objective.waveform_losses(step, speech, weights)
                losses |= objective.speech_losses(speech) | objective.label_losses(labeled)
                auxiliary = objective.discriminator_losses(step, speech)
                shown = losses | auxiliary
                if objective.values.balance and speech is not None:
                    losses, averages = balance(
                        losses, weights, speech.decoded_BS, speech.leaf_BS, averages, micro.parts
                    )
            total = weighted_sum(losses, weights)
            ((total + sum(auxiliary.values())) / micro.count).backward()
            if objective.has_speaker_loss(step):  # its gradients come in chunks: a model's states
                shown |= objective.backward_speaker_loss(step, micro)
                total = total + weights[SPEAKER] * shown[SPEAKER]
            rows.append({name: loss.detach() for name, loss in (shown | {"total": total}).items()})
        metrics = {f"loss/{name}": mean_of([row[name] for row in rows]) for name in rows[0]}

        optimizers = self.optimizers(AUXILIARY + ENCODER)
        loss = distributed.average_gradients(parameters_of(optimizers), metrics["loss/total"])
        norm = clip_gradients(self.optimizers(ENCODER))
        others = [loss, *(clip_gradients([each]) for each in self.optimizers(AUXILIARY))]
        # Not finite if one of them is not; on the CPU, so that a GPU is waited for once a step.
        norm = (norm + 0.0 * mean_of([each.to(norm) for each in others])).cpu()
        if torch.isfinite(norm):
            set_learning_rate(optimizers, step, run.steps, self.config.optimizer.warmup_steps)
            with state.updating():
                for optimizer in self.optimizers(AUXILIARY):  # discriminators
                    optimizer.step()
                for optimizer in self.optimizers(ENCODER):
                    optimizer.step()
                if run.ema:
                    update_ema(state.modules["encoder_ema"], self.encoder, run.ema, step)
                state.values |= {BALANCER: averages} if averages else {}
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        return metrics | {GRAD_NORM: norm, SECONDS: torch.tensor(self.seconds)}

    def validate(self, step: int, log: Log) -> Metrics:
        """Codes of the held-out presets, decoded and encoded again, and a check on real speech."""
        with self.evaluation(), torch.no_grad():
            codec = self.objective.codec
            metrics = preset_metrics(codec, self.objective.material.held_out)
            crops = self.objective.draw_speech(step_generator(0, 0, stream=9))
            check = check_speech(codec, crops.wave_BS.to(self.objective.device))
        log_speech(check, codec, step, log)
        return metrics | check.metrics

    def collapse_check(self, step: int, metrics: Metrics) -> str | None:
        """Why the run must stop, if the encoder has collapsed."""
        begin = self.config.run.collapse_check_from
        return None if begin is None or step < begin else collapse(metrics)

    def save(
        self, path: Path, release: Release, config: dict[str, Any], step: int, metrics: Metrics
    ) -> None:
        """Write the encoder that the training is for; the first process does."""
        with distributed.rank0_first():
            if distributed.is_rank0():
                training = {"config": config, "step": step, "metrics": metrics}
                save_encoder(path, encoder_tensors(self.result), release, training)

    @property
    def encoder(self) -> Encoder:
        """The encoder that learns."""
        encoder = self.state.modules["encoder"]
        assert isinstance(encoder, Encoder)
        return encoder

    @property
    def result(self) -> Encoder:
        """The encoder that the training is for: the mean of its weights where one is kept."""
        encoder = self.state.modules.get("encoder_ema", self.encoder)
        assert isinstance(encoder, Encoder)
        return encoder

    @property
    def seconds(self) -> float:
        """Audio of a step."""
        values, rate = self.objective.values, self.objective.codec.frame_rate
        return (values.real_batch + values.pair_batch) * values.frames / rate

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Within, the codec has the encoder that will be written, and it does not learn."""
        codec = self.objective.codec
        codec.encoder = self.result.eval()
        try:
            yield
        finally:
            codec.encoder = self.encoder.train()

    def optimizers(self, names: Sequence[str]) -> list[Optimizer]:
        """Those of these names that there are."""
        return [self.state.optimizers[name] for name in names if name in self.state.optimizers]


def mean_of(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()


def encoder_tensors(encoder: Encoder) -> dict[str, Tensor]:
    """An encoder's tensors under the names of the release."""
    state = encoder.state_dict()
    return {f"{CODEC}{k}": v.detach().cpu().clone() for k, v in state.items()}


def report(outcome: Outcome, path: Path, best: dict[str, Any] | None, console: Console) -> int:
    """Say what was written, and what to do with it; returns the exit code."""
    console.print(f"Wrote {path} (step {outcome.step}, {outcome.reason}).")
    if best is not None and best["step"] != outcome.step:
        console.print(
            f"By levels and semantic codes together, {path.with_name(BEST_FILE)} (step "
            f"{best['step']}) is the best of this run."
        )
    if outcome.reason in ("interrupted", "time"):
        console.print("Go on with the same command and `--resume`.")
    if outcome.reason == "interrupted":
        return EXIT_INTERRUPTED
    console.print(f'Use it: voxclone clone REF "text" -o out.wav --encoder {path}')
    return EXIT_OK


def no_memory(values: StepValues, device: torch.device, error: Exception) -> TrainingError:
    """The sentence of a device that is too small."""
    parts, chunk = values.micro_batches, values.speakers_at_a_time
    clones = f"`speaker_loss.micro_batch` ({chunk}), " if values.weights[SPEAKER] else ""
    return TrainingError(
        f"The device {device} has too little memory for a step: make `frames` (now "
        f"{values.frames}), {clones}`real_batch` ({values.real_batch}) or `pair_batch` "
        f"({values.pair_batch}) smaller, or do the same batch in micro-batches, for example `--set "
        f"run.micro_batches={2 * parts}` (now {parts}), or with `--set "
        f"run.gradient_checkpointing=true`; a run that has begun takes that with "
        f"`--resume --force`. ({str(error).splitlines()[0]})"
    )
