"""A tiny training with every part switched on, to be run, killed and divided in other processes."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from tests.helpers.disk import slow_disk
from tests.train.tiny import CPU, QUIET, ctc_teacher, usual_codec
from voxclone.data.corpus import PackedCorpus, Subset
from voxclone.data.labels import Label
from voxclone.data.manifest import Clip
from voxclone.errors import AudioError, VoxcloneError
from voxclone.train import distributed, encoder, loop, pseudo_labels
from voxclone.train.batch import MicroBatch, StepBatch
from voxclone.train.encoder import EncoderTraining, build, encoder_tensors
from voxclone.train.encoder_config import EncoderConfig
from voxclone.train.loop import Outcome, fit
from voxclone.train.material import Inputs, Material

with contextlib.suppress(ImportError):  # once, and not in every process
    import torch.utils.tensorboard

EVERYTHING: dict[str, Any] = {
    "run": {"steps": 6, "save_every": 1, "validate_every": 3, "autocast": False, "ema": 0.9},
    "optimizer": {"lr": 1e-3, "warmup_steps": 2, "muon": True},
    "weights": {
        "pair_semantic": 0.2, "pair_levels": 1.0, "mel": 2.0, "stft": 0.5, "low": 1.0, "l1": 0.5,
        "magnitude": 0.1, "feature_matching": 1.0, "level_prior": 0.1, "diversity": 0.1,
        "scale": 0.1, "commitment": 0.1, "bridge": 0.1, "asr_distillation": 0.5,
    },
    "balance": True, "discriminators": {"channels": 2, "start": 1},
    "pair_batch": 4, "real_batch": 4, "pseudo_labels": {"batch": 4}, "frames": 4, "real_from": 1,
    "mel_scales": [[256, 20]], "stft_sizes": [256],
}  # fmt: skip
loop.LOG_EVERY = 2


def config_of(**changes: Any) -> EncoderConfig:
    """The values of `EVERYTHING` with some groups or values changed."""
    values = dict(EVERYTHING)
    for name, value in changes.items():
        values[name] = values.get(name, {}) | value if isinstance(value, Mapping) else value
    return EncoderConfig.model_validate(values)


def humming() -> Subset:
    """Clips of half a second, each louder than the one before; the first is shorter than a crop."""
    time = torch.arange(12000) / 24000
    clips, waves, starts = [], [], [0]
    for index in range(5):
        pitch = 90.0 * 1.2**index
        wave = sum(torch.sin(2 * torch.pi * pitch * h * time) / h for h in range(1, 7))
        wave_S = (0.01 * 1.8**index * wave * 32767).to(torch.int16)  # type: ignore[union-attr]
        wave_S = wave_S[:6000] if index == 0 else wave_S
        clips.append(Clip(f"c{index}", Path("none"), f"s{index % 2}", len(wave_S) / 24000))
        waves.append(wave_S)
        starts.append(starts[-1] + len(wave_S))
    return PackedCorpus(clips, starts, torch.cat(waves).numpy()).subset(lambda clip: True)


class FullTraining(EncoderTraining):
    """`before` is called before each step; at `poisoned` steps real speech is not finite, and from
    the step `vanished` on it cannot be read."""

    before: Callable[[int], None] = staticmethod(lambda step: None)
    poisoned: frozenset[int] = frozenset()
    vanished: int | None = None

    def train_step(self, step: int) -> dict[str, Tensor]:
        self.before(step)
        return super().train_step(step)

    def draw(self, step: int) -> list[tuple[MicroBatch, StepBatch]]:
        if self.vanished is not None and step >= self.vanished:
            raise AudioError("c1 cannot be read.")
        drawn = super().draw(step)
        for _, batch in drawn:
            if step in self.poisoned and batch.speech is not None:
                batch.speech.crops.wave_BS.fill_(torch.nan)
        return drawn


def full_material(labels: Path | None = None) -> Material:
    """With the weight `pseudo_label` it needs a folder for `labels`, and
    `pseudo_labels.label_clips` must not ask its model, which is none."""
    generator = torch.Generator().manual_seed(0)
    genuine = [
        torch.cat(
            [
                torch.randint(16, (1, length), generator=generator),
                torch.randint(21, (3, length), generator=generator),
            ]
        )
        for length in (2, 9, 3, 4, 1, 9, 3)
    ]
    return Material(
        usual_codec(), humming(), genuine, {"p": genuine[1]}, teacher=ctc_teacher(),
        language_model=cast(Any, object()), labels=labels,
    )  # fmt: skip


def full_training(
    config: EncoderConfig, material: Material | None = None, device: torch.device = CPU
) -> FullTraining:
    made = build(config, full_material() if material is None else material, device)
    return FullTraining(made.config, made.objective, made.state)


def train(
    folder: Path, training: FullTraining | None = None, **more: Any
) -> tuple[FullTraining, Outcome]:
    """Go on with the training in a folder, to its end."""
    config = config_of() if training is None else training.config
    training = full_training(config) if training is None else training
    values = config.model_dump(mode="json")
    arguments = {"resume": True, "config": values, "console": QUIET} | more
    return training, fit(training, config.run, folder, **arguments)


def write_state(training: EncoderTraining, path: Path) -> None:
    """Everything that a checkpoint would hold, and the encoder that would be written."""
    tensors = {name: tensor.clone() for name, tensor in training.state.tensors().items()}
    written = encoder_tensors(training.result)
    temporary = path.with_suffix(".tmp")
    save_file(tensors | {f"written.{k}": v for k, v in written.items()}, temporary)
    os.replace(temporary, path)


def run_alone(folder: Path, result: Path) -> None:
    """What is killed: train in `folder`, then write the state to `result`."""
    torch.set_num_threads(1)
    training, _ = train(folder)
    write_state(training, result)


def join(rank: int, size: int, meeting: Path, longest_step: float) -> None:
    """Become one of `size` processes."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(meeting), size)
    distributed.join("gloo", store, rank, size, timedelta(seconds=longest_step))


def run_in_group(
    rank: int,
    size: int,
    meeting: Path,
    folder: Path,
    changes: dict[str, Any],
    poisoned: dict[int, list[int]],
    vanished: Mapping[int, int] | None = None,
    terminate_at: int | None = None,
    terminate_at_clip: int | None = None,
    outs: Sequence[str] = (),
    most_skipped: int = loop.MOST_SKIPPED,
    longest_step: float = 600.0,
    pauses: Mapping[int, tuple[int, float]] | None = None,
    flush_seconds: float = 0.0,
) -> None:
    """One of `size` processes of the command, which writes into `folder`, or into a folder of its
    own number in it, out of `outs`; ends with its code, or the error's. `rank-N.txt` has the
    error's sentence and the values of the state. `poisoned` are steps by rank, `vanished`
    is a step by rank; the last process is sent SIGTERM at a step, or when the first one labels the
    clip of a number. `pauses` are a step and the seconds that a process stands still in it, by
    rank; whatever is flushed to the disk takes `flush_seconds` more."""
    join(rank, size, meeting, longest_step)
    loop.MOST_SKIPPED = most_skipped
    (folder / f"pid-{rank}").write_text(str(os.getpid()))
    trainings: list[FullTraining] = []

    def terminate(step: int) -> None:
        if step == terminate_at and rank == size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        at, seconds = (pauses or {}).get(rank, (None, 0.0))
        if step == at:
            (folder / f"paused-{rank}").touch()
            time.sleep(seconds)

    def label(clip: int) -> None:
        with (folder / "labeled").open("a") as file:
            file.write(f"{clip}\n")
        if clip == terminate_at_clip:
            os.kill(int((folder / f"pid-{size - 1}").read_text()), signal.SIGTERM)

    def prepare(
        config: EncoderConfig, inputs: Inputs, device: torch.device, out: Path, console: Console
    ) -> FullTraining:
        (folder / f"prepared-{rank}").touch()
        training = full_training(config, full_material(out / "labels"))
        training.poisoned, training.before = frozenset(poisoned.get(rank, [])), terminate
        training.vanished = (vanished or {}).get(rank)
        trainings.append(training)
        return training

    pseudo_labels.label_clips = partial(draw_labels, label)
    encoder.prepare = prepare
    encoder.Release.open = lambda source: None  # type: ignore[assignment, method-assign]
    encoder.save_encoder = lambda *given: None
    out, message = folder / outs[rank] if outs else folder, ""
    try:
        with slow_disk(flush_seconds):
            config, inputs = config_of(**changes), Inputs(device="cpu")
            code = encoder.main(config, inputs, out, QUIET, resume=True)
    except VoxcloneError as error:
        code, message = error.exit_code, str(error)
    for training in trainings:
        write_state(training, folder / f"rank-{rank}.safetensors")
        message += f" {training.state.step} {training.state.values}"
    (folder / f"rank-{rank}.txt").write_text(message)
    sys.exit(code)


def draw_labels(
    label: Callable[[int], None],
    codec: object,
    model: object,
    speech: Subset,
    count: int,
    generator: torch.Generator,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[int, Label]:
    """As `pseudo_labels.label_clips`, without a language model, 20 ms for a clip; `label` is called
    with the number of each, of which the first clips have labels at the end."""
    labels = {}
    for number in track(range(count)):
        time.sleep(0.02)
        label(number)
        code_TJ = torch.randint(16, (7, 2), generator=generator)
        labels[speech.indices[number % len(speech.indices)]] = Label(
            code_TJ, torch.full((7, 2), 0.5)
        )
    return labels
