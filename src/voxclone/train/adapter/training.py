"""Phase 2: adapt the frozen language model, so that it reads an encoder's codes as the voice that
they mean.

    main -> gather -> build -> prove -> fit (train_step, validate) -> accept

The teacher is the same model with the adapter off (`Adapter.disabled`), so that nothing is held
twice. What is drawn for an item depends on seed, step and item alone, and every loss is a mean over
items or of the whole batch: several processes train as one (`distributed`).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from voxclone import checkpoint
from voxclone.device import pick_device
from voxclone.errors import EXIT_OK, ConfigError, TrainingError
from voxclone.io import atomic_path
from voxclone.release.release import Release
from voxclone.train import distributed
from voxclone.train.adapter.acceptance import BEST_FILE, accept
from voxclone.train.adapter.config import AdapterConfig
from voxclone.train.adapter.gate import Gate, Verdict
from voxclone.train.adapter.material import Inputs, Material, gather
from voxclone.train.adapter.objective import HELD_OUT, Objective
from voxclone.train.adapter.preconditions import require_parity, require_scale, teacher_hash
from voxclone.train.adapter.reading import Item
from voxclone.train.batch import check_batches, micro_batches
from voxclone.train.checkpoint import SPEECH, TrainState, require_shared
from voxclone.train.logging import SECONDS, Log
from voxclone.train.loop import (
    CHECKPOINTS,
    EXIT_INTERRUPTED,
    GRAD_NORM,
    Metrics,
    fit,
    require_success,
)
from voxclone.train.optim import adamw, clip_gradients, parameters_of, set_learning_rate
from voxclone.tts.adapter import Adapter, attach
from voxclone.tts.adapter_file import SCHEMA as ADAPTER_SCHEMA
from voxclone.tts.adapter_file import AdapterCard, base_hash, require_unmerged
from voxclone.tts.tts import TTS

BEST = "best"
"""Among the values of a state: step and score of the best adapter."""
SCORE, PASSED = "valid/score", "valid/passed"
PROVED_ITEMS = 3
LICENSE = "CC BY-NC 4.0 where the base is Voxtral-4B-TTS-2603"


def main(
    config: AdapterConfig,
    inputs: Inputs,
    out: Path,
    console: Console,
    *,
    resume: bool,
    force: bool = False,
) -> int:
    """Train as the config says, in the folder `out`; returns the exit code. Under torchrun all
    processes train together, and the first writes, prints and speaks.

    Raises TrainingError if something that is proved before the first step does not hold, and
    QualityError if the adapter fails its gate and is not written all the same (`force`).
    """
    device = pick_device(inputs.device)
    distributed.start(device)
    console = console if distributed.is_rank0() else Console(quiet=True)
    values = config.model_dump(mode="json")
    try:
        require_shared(out)
        release = Release.open(inputs.model)
        require_unmerged(release)
        with distributed.rank0_first():
            if not resume:
                checkpoint.require_none(out / CHECKPOINTS, "--out")
            material = gather(config, inputs, release, device, out, console)
        training = build(config, material)
        speaks = distributed.is_rank0() or config.run.shard  # a divided model speaks with all
        gate = open_gate(training, release, inputs) if speaks else None
        training.gate = gate
        prove(training, console)

        def keep(step: int, metrics: Metrics) -> None:
            best = training.state.values.get(BEST)
            if best is None or metrics[SCORE] > best["score"]:
                if distributed.is_rank0():
                    with atomic_path(out / BEST_FILE) as temporary:
                        save_file(training.adapter.tensors(), temporary)
                training.state.values[BEST] = {"step": step, "score": metrics[SCORE]}

        outcome = fit(
            training, config.run, out, resume=resume, changed=force, console=console, keep=keep,
            config=values | {
                "model": inputs.model, SPEECH: material.speech.identity(),
                "encoder": material.encoder_hash,
            },
        )  # fmt: skip
        require_success(outcome, out)
        training.require_same_teacher()
        if outcome.reason in ("interrupted", "time"):
            console.print("Go on with the same command and `--resume`.")
            return EXIT_INTERRUPTED if outcome.reason == "interrupted" else EXIT_OK
        if gate is None:
            return EXIT_OK
        best = training.state.values[BEST]
        card = partial(make_card, training, release, best["step"])
        return accept(
            gate, training.adapter, outcome, best["step"], out, console, card, force=force
        )
    except distributed.RaisedByRank0 as other:
        return other.exit_code
    finally:
        distributed.stop()


def build(config: AdapterConfig, material: Material) -> "AdapterTraining":
    """An adapter by the seed in the frozen model, and its optimizer. Raises ConfigError where a
    loss has nothing to learn from, or processes cannot share the batches."""
    weights, reader = config.weights, config.adapter.reader
    if not (weights.uses_speech or weights.distills):
        raise ConfigError(
            "No loss has a weight by which the adapter would learn to read the encoder's codes: "
            "set `weights.semantic`, `weights.hidden` or `weights.semantic_kl`."
        )
    if weights.embedding and reader == "lora":
        raise ConfigError(
            "The weight `embedding` is a loss of the embeddings of voices, which a LoRA does not "
            "change: set it to 0, or choose the reader voice or table."
        )
    batches = {
        "batch": config.batch if weights.uses_speech else 0,
        "preset_batch": config.preset_batch if weights.distills or weights.preset else 0,
    }
    check_batches(batches, config.run.micro_batches)
    tts = material.tts
    adapter = attach(tts.backbone, tts.head, config.adapter, config.run.seed)
    if config.run.gradient_checkpointing:
        tts.backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
    if config.run.shard and distributed.world_size() > 1:
        distributed.shard(tts.backbone.model.layers, [*adapter.parameters.parameters()])
    optimizer = adamw(adapter.parameters.parameters(), config.optimizer)
    state = TrainState({"adapter": adapter.parameters}, {"adamw": optimizer})
    return AdapterTraining(config, Objective(config, material, adapter), state)


def open_gate(training: "AdapterTraining", release: Release, inputs: Inputs) -> Gate:
    material = training.objective.material
    assert inputs.speech is not None  # `gather` refuses it
    held_out = material.known[::HELD_OUT]
    return Gate.open(
        training.config.gate, release, material, training.adapter, held_out, inputs.speech
    )


def prove(training: "AdapterTraining", console: Console) -> None:
    """Raise TrainingError unless the training may begin (`preconditions`)."""
    tts, material = training.tts, training.objective.material
    items = [
        Item(material.presets[each.preset], each.text, each.codes_KT, stored=True)
        for each in material.known[:PROVED_ITEMS]
    ]
    with training.adapter.disabled():
        share = require_parity(tts.backbone, tts.head, tts.prompts, items)
    require_scale(training.adapter, tts.backbone, tts.head, tts.prompts, training.config.run.seed)
    training.teacher = teacher_hash(training.adapter, tts.backbone, tts.head, tts.prompts)
    count = sum(p.numel() for p in training.adapter.parameters.parameters())
    console.print(
        f"Proved: the training reads presets as generation does (to {share:.1g}), and the scale 0 "
        f"is the base bit for bit. The adapter has {count:,} values."
    )


@dataclass
class AdapterTraining:
    """A training in progress; see `loop.Task`. Where the model is divided over processes, all have
    a `gate` and speak in step; otherwise the first one."""

    config: AdapterConfig
    objective: Objective
    state: TrainState
    gate: Gate | None = None
    teacher: str = ""

    def train_step(self, step: int) -> dict[str, Tensor]:
        """One step; returns metrics."""
        run, weights = self.config.run, self.config.weights.model_dump()
        rows: list[dict[str, Tensor]] = []
        self.tts.backbone.train(run.gradient_checkpointing)
        for micro in micro_batches(run.micro_batches):
            losses = self.objective.losses(step, micro)
            total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
            (total / micro.count).backward()
            rows.append({name: loss.detach() for name, loss in (losses | {"total": total}).items()})
        self.tts.backbone.eval()
        metrics = {
            f"loss/{name}": torch.stack([row[name] for row in rows]).mean() for name in rows[0]
        }
        optimizer = self.state.optimizers["adamw"]
        total = distributed.average_gradients(parameters_of([optimizer]), metrics["loss/total"])
        norm = clip_gradients([optimizer])
        # Not finite if one of them is not; on the CPU, so that a GPU is waited for once a step.
        norm = (norm + 0.0 * total.to(norm)).cpu()
        if torch.isfinite(norm):
            set_learning_rate([optimizer], step, run.steps, self.config.optimizer.warmup_steps)
            with self.state.updating():
                optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return metrics | {GRAD_NORM: norm, SECONDS: torch.tensor(self.seconds)}

    def validate(self, step: int, log: Log) -> Metrics:
        """Generated speech of base and adapted model, and the size of the change of each module.
        Who has no gate waits for what the first process finds."""
        if self.config.run.shard:
            return self._validate(step, log)
        with distributed.rank0_first():
            return self._validate(step, log)

    def _validate(self, step: int, log: Log) -> Metrics:
        if self.gate is None:
            return {}
        log.scalars(step, {f"change/{n}": v for n, v in self.adapter.changes().items()})
        verdict = self.gate.verdict("valid")
        metrics = {f"valid/{name}": row["adapted"] or 0.0 for name, row in verdict.rows.items()}
        # An adapter that would be refused is selected where there is no other.
        score = verdict.score - (0.0 if verdict.passed else 1.0)
        return {SCORE: score, PASSED: float(verdict.passed)} | metrics

    def require_same_teacher(self) -> None:
        """Raise TrainingError if the frozen model is not what it was before the first step."""
        tts = self.tts
        now = teacher_hash(self.adapter, tts.backbone, tts.head, tts.prompts)
        if now != self.teacher:
            raise TrainingError(
                "The frozen model changed while the adapter was trained, so its losses mean "
                "nothing: report this as a defect."
            )

    @property
    def adapter(self) -> Adapter:
        return self.objective.adapter

    @property
    def tts(self) -> TTS:
        return self.objective.material.tts

    @property
    def seconds(self) -> float:
        """Speech of a step, at most."""
        config = self.config
        items = config.batch * config.weights.uses_speech
        items += config.preset_batch * (config.weights.distills + bool(config.weights.preset))
        return items * config.target_frames / self.tts.codec.frame_rate


def make_card(
    training: AdapterTraining, release: Release, step: int, verdict: Verdict
) -> AdapterCard:
    """What the folder of the adapter of this step says of it."""
    config, material = training.config, training.objective.material
    metrics = {name: row["adapted"] or 0.0 for name, row in verdict.rows.items()}
    base = {f"base/{name}": row["base"] or 0.0 for name, row in verdict.rows.items()}
    return AdapterCard(
        schema=ADAPTER_SCHEMA,
        adapter=config.adapter.model_dump(mode="json"),
        base=str(release.path.name),
        base_hash=base_hash(release),
        encoder_hash=material.encoder_hash,
        data=material.notes,
        license=LICENSE,
        consent=config.consent,
        step=step,
        metrics=metrics | base,
        passed=verdict.passed,
        lost=verdict.lost,
    )
