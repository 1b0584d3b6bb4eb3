"""What is refined, and who judges it: each half of the recording by the other one.

Shapes: S samples, K code books, T frames.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from voxclone.audio.loudness import normalize_loudness
from voxclone.cloning.refine.free import NOTHING, Start
from voxclone.cloning.refine.reading import GainJudge, Halves
from voxclone.cloning.refine.settings import RefineSettings
from voxclone.codec.model import Codec
from voxclone.errors import TrainingError
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.tts.tts import TTS

LEAST_FALL = 1e-3  # a figure that is so little lower has not fallen
INAUDIBLE = 1e-4


@dataclass
class Job:
    """What is refined: a recording [S] of whole frames at 24 kHz, a start, and who judges. Without
    `model` nothing is plausible or not, and `halves` need no words."""

    codec: Codec
    wave_S: Tensor
    start: Start
    halves: Halves
    settings: RefineSettings
    model: TTS | None = None
    gain: GainJudge | None = None
    embedder: Ge2eEmbedder = field(default_factory=Ge2eEmbedder.load)


@dataclass(frozen=True)
class Judged:
    """Codes [K, T] after so many steps, and what was found: `gain` in nats a frame (None without a
    model), `likeness` of each half to the other one's recording."""

    step: int
    gain: float | None
    likeness: float
    codes_KT: Tensor

    def figures(self) -> dict[str, Any]:
        return {"step": self.step, "gain": self.gain, "likeness": round(self.likeness, 4)}


@torch.no_grad()
def judge(job: Job, step: int, codes_KT: Tensor) -> Judged:
    """The figures of codes. Raises TrainingError if one is not a finite number: nothing could be
    said to be better than it, or worse."""
    size = job.codec.frame_size
    decoded_S = job.codec.decode(codes_KT[None])[0]
    made, heard = job.halves.parts(decoded_S, size), job.halves.parts(job.wave_S, size)
    likeness = sum(_alike(job.embedder, made[i], heard[1 - i]) for i in (0, 1)) / 2
    gain = None if job.gain is None else job.gain(codes_KT)
    for name, value in (("likeness", likeness), ("gain", gain)):
        if value is not None and not math.isfinite(value):
            raise TrainingError(
                f"The {name} of the codes after {step} steps is not a finite number, so that they "
                "cannot be judged: the release's weights may be damaged (`voxclone inspect`)."
            )
    return Judged(step, gain, likeness, codes_KT)


def figure(judged: Judged, settings: RefineSettings) -> float:
    """What the judge goes by."""
    if settings.judge == "likeness":
        return judged.likeness
    assert judged.gain is not None
    return judged.gain


def candidates(job: Job, judged: list[Judged]) -> list[Judged]:
    """What may be kept: everything that was judged; of a start from nothing, only what was made of
    it, once there is some."""
    made = [each for each in judged if each.step]
    return made if made and job.start.kind == NOTHING else judged


def has_fallen(judged: list[Judged], settings: RefineSettings) -> bool:
    """Whether likeness or gain was below its best at each of the last judgements."""
    rows = [[each.likeness for each in judged]]
    gains = [each.gain for each in judged if each.gain is not None]
    if gains:
        rows.append(gains)
    last = settings.patience
    return len(judged) > last and any(
        all(value < max(row[:-last]) - LEAST_FALL for value in row[-last:]) for row in rows
    )


def _alike(embedder: Ge2eEmbedder, a_S: Tensor, b_S: Tensor) -> float:
    if float(a_S.abs().max()) < INAUDIBLE:
        return 0.0  # codes that decode to silence are alike to nothing
    return float(embedder.embed(normalize_loudness(a_S)) @ embedder.embed(normalize_loudness(b_S)))
