"""The plan: what each stage will do, how long that takes here, memory, disk, and the likely worth.

Hours of training and pairs are measured (`calibration`); those of other stages follow from it and
from measured speeds of the machine of docs/PERFORMANCE.md.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from voxclone.errors import ConfigError, TrainingError
from voxclone.recover.calibration import Calibration
from voxclone.recover.recipe import Recipe
from voxclone.recover.survey import Survey
from voxclone.release.release import Release
from voxclone.spec import FRAME_RATE
from voxclone.train.encoder_config import EncoderConfig

PREPARE_SPEED = 146.0
"""Hours of speech that a core prepares in an hour."""
CLIP_SECONDS = 0.0005
READ_SPEED = 5e8
"""Bytes a second, read and hashed."""
FLAC_BYTES_PER_HOUR, PACKED_BYTES_PER_HOUR, PAIR_BYTES_PER_HOUR = 1.1e8, 1.73e8, 3.3e6
DIAGNOSED_SECONDS, PASSES, UTTERANCES, UTTERANCE_SECONDS = 300.0, 4, 200, 4.0
MARGIN = 1.1
"""Of the disk's free room over the planned."""


@dataclass(frozen=True)
class StagePlan:
    """A stage: what it does, its seconds (None where they are not known), the bytes that it leaves,
    and what an earlier call has left of it."""

    stage: str
    work: str
    seconds: float | None
    bytes: float
    state: str


@dataclass(frozen=True)
class Plan:
    """All stages, the values of the training, the peak of memory (bytes; None if not measured) of
    how much there is, the free disk (bytes), and sentences on what to expect."""

    stages: tuple[StagePlan, ...]
    config: EncoderConfig
    device: str
    memory: int | None
    memory_total: int | None
    free: int
    expectation: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Of what is left to do, as far as it is known."""
        return sum(each.seconds or 0.0 for each in self.stages)

    @property
    def bytes(self) -> float:
        """Of what is left to do."""
        return sum(each.bytes for each in self.stages)


@dataclass(frozen=True)
class Amounts:
    """What is to be processed: all speech and its part to train on, and whether it is a folder that
    must be prepared, and whether the training must unpack it first."""

    speech: Survey
    train: Survey
    folder: bool
    prepared: bool
    jobs: int


def estimate(
    recipe: Recipe, release: Release, amounts: Amounts, found: Calibration | None
) -> dict[str, tuple[str, float | None, float]]:
    """Of each stage what it does, its seconds and bytes."""
    config, hours = recipe.config, amounts.speech.hours
    size = sum(header.path.stat().st_size for header in release.files.headers)
    steps, minutes = config.run.steps, config.pairs.minutes
    pairs = train = diagnose = voices = None
    checkpoint = 0.0
    if found is not None:
        speed = max(1e-6, found.pair_frames_per_second)
        pairs, train = minutes * 60 * FRAME_RATE / speed, found.train
        checkpoint = 3.0 * found.checkpoint  # two are kept while a third is written
        diagnose = DIAGNOSED_SECONDS * PASSES * found.codec_seconds + 20 * 60 / speed
        spoken = UTTERANCES * UTTERANCE_SECONDS
        voices = spoken * (2 * FRAME_RATE / speed + found.codec_seconds)
    packed = 0.0 if amounts.prepared or amounts.folder else amounts.train.hours
    return {
        "prepare": (
            f"{amounts.speech.sentence()}: clean clips at 24 kHz",
            3600 * hours / PREPARE_SPEED / amounts.jobs,
            hours * FLAC_BYTES_PER_HOUR,
        ),
        "validate": (
            "check files, texts and speakers; set test speakers aside",
            amounts.speech.clips * CLIP_SECONDS,
            300.0 * amounts.speech.clips,
        ),
        "pairs": (
            f"{minutes:g} min of the release's own speech, codes only",
            pairs,
            minutes / 60 * PAIR_BYTES_PER_HOUR,
        ),
        "train": (
            f"{steps:,} steps of {recipe.name}.yaml",
            train,
            checkpoint + packed * PACKED_BYTES_PER_HOUR,
        ),
        "diagnose": ("known failures of an encoder, on up to 300 s of speech", diagnose, 2e6),
        "evaluate": ("clones of the test speakers, beside the presets", voices, 2e6),
        "inject": ("a release with the encoder, proved by hash", 2 * size / READ_SPEED, 0.0),
    }


def require_room(plan: Plan, out: Path) -> None:
    """Raise ConfigError where the disk is too small for what is left to do."""
    if plan.bytes * MARGIN > plan.free:
        raise ConfigError(
            f"{out} will need {plan.bytes / 1e9:.1f} GB, but the disk has {plan.free / 1e9:.1f} GB "
            "left: make room, or name a folder on another disk."
        )


def require_memory(plan: Plan) -> None:
    """Raise TrainingError where the device holds less than the calibration has used."""
    if plan.memory is None or plan.memory_total is None or plan.memory <= plan.memory_total:
        return
    config = plan.config
    raise TrainingError(
        f"The training needs {plan.memory / 1e9:.1f} GB, and {plan.device} has "
        f"{plan.memory_total / 1e9:.1f} GB: do a batch in parts (`--set run.micro_batches="
        f"{2 * config.run.micro_batches}`), or make `real_batch` ({config.real_batch}), "
        f"`pair_batch` ({config.pair_batch}) or `frames` ({config.frames}) smaller."
    )


def total_memory(device: torch.device) -> int:
    """Bytes of a GPU, or of this machine."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_room(out: Path) -> int:
    """Free bytes of the disk that `out` is or will be on."""
    existing = next(each for each in (out, *out.absolute().parents) if each.exists())
    return shutil.disk_usage(existing).free


def duration(seconds: float | None) -> str:
    """Seconds in words."""
    if seconds is None:
        return "not measured"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def plan_lines(plan: Plan, until: Sequence[str]) -> list[str]:
    """The plan as lines."""
    lines = []
    for each in plan.stages:
        room = f"{each.bytes / 1e9:.2f} GB" if each.bytes >= 5e6 else ""
        state = each.state if each.stage in until else "not asked for"
        time = "" if state in ("kept", "not asked for") else duration(each.seconds)
        lines.append(f"{each.stage:<10} {time:>12} {room:>9}  {each.work} ({state})".rstrip())
    known = all(each.seconds is not None for each in plan.stages)
    lines.append(
        f"In all     {duration(plan.seconds):>12} {plan.bytes / 1e9:>6.2f} GB  on {plan.device}"
        + ("" if known else "; the training is too short to be measured first")
    )
    if plan.memory is not None and plan.memory_total is not None:
        lines.append(
            f"Memory     {plan.memory / 1e9:>9.1f} GB  of {plan.memory_total / 1e9:.1f} GB; disk "
            f"free: {plan.free / 1e9:.1f} GB"
        )
    return [*lines, *(f"Expect     {sentence}" for sentence in plan.expectation)]
