"""The evaluation of codes in a refinement: each half of the recording by the other one.

Shapes: S samples, K codebooks, T frames.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from voxclone.audio.loudness import normalize_loudness
from voxclone.cloning.refine.gain import ConditioningGain
from voxclone.cloning.refine.halves import Halves
from voxclone.cloning.refine.parameters import NOTHING, Start
from voxclone.cloning.refine.settings import RefineSettings
from voxclone.codec.model import Codec
from voxclone.errors import TrainingError
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.tts.tts import TTS

TOLERANCE = 1e-3  # a metric that is lower by less has not fallen
INAUDIBLE = 1e-4


@dataclass
class Job:
    """One refinement: a recording [S] of whole frames at 24 kHz, the start, and the evaluation.
    Without `model` the losses of the language model are left out, and `halves` need no words."""

    codec: Codec
    wave_S: Tensor
    start: Start
    halves: Halves
    settings: RefineSettings
    model: TTS | None = None
    gain: ConditioningGain | None = None
    embedder: Ge2eEmbedder = field(default_factory=Ge2eEmbedder.load)


@dataclass(frozen=True)
class Evaluation:
    """Codes [K, T] after so many steps, and their metrics: conditioning `gain` in nats a frame
    (None without a model), and speaker `similarity` of each half to the other one's recording."""

    step: int
    gain: float | None
    similarity: float
    codes_KT: Tensor

    def to_dict(self) -> dict[str, Any]:
        return {"step": self.step, "gain": self.gain, "similarity": round(self.similarity, 4)}


@torch.no_grad()
def evaluate(job: Job, step: int, codes_KT: Tensor) -> Evaluation:
    """The metrics of codes. Raises TrainingError if one is not a finite number, since it could not
    be compared."""
    size = job.codec.frame_size
    decoded_S = job.codec.decode(codes_KT[None])[0]
    made, true = job.halves.parts(decoded_S, size), job.halves.parts(job.wave_S, size)
    similarity = sum(_cosine(job.embedder, made[i], true[1 - i]) for i in (0, 1)) / 2
    gain = None if job.gain is None else job.gain(codes_KT)
    for name, value in (("similarity", similarity), ("gain", gain)):
        if value is not None and not math.isfinite(value):
            raise TrainingError(
                f"The {name} of the codes after {step} steps is not a finite number, so that they "
                "cannot be compared: the release's weights may be damaged (`voxclone inspect`)."
            )
    return Evaluation(step, gain, similarity, codes_KT)


def selection_metric(found: Evaluation, settings: RefineSettings) -> float:
    """The metric by which the best codes are kept."""
    if settings.select_by == "similarity":
        return found.similarity
    assert found.gain is not None
    return found.gain


def candidates(job: Job, evaluations: list[Evaluation]) -> list[Evaluation]:
    """The evaluations to select from. A start from nothing is noise, which has a good metric only
    by chance, so it is left out once there are others."""
    later = [each for each in evaluations if each.step]
    return later if later and job.start.kind == NOTHING else evaluations


def has_fallen(evaluations: list[Evaluation], settings: RefineSettings) -> bool:
    """Whether similarity or gain was below its best in each of the last evaluations."""
    series = [[each.similarity for each in evaluations]]
    gains = [each.gain for each in evaluations if each.gain is not None]
    if gains:
        series.append(gains)
    last = settings.patience
    return len(evaluations) > last and any(
        all(value < max(values[:-last]) - TOLERANCE for value in values[-last:])
        for values in series
    )


def _cosine(embedder: Ge2eEmbedder, a_S: Tensor, b_S: Tensor) -> float:
    if float(a_S.abs().max()) < INAUDIBLE:
        return 0.0  # codes that decode to silence
    return float(embedder.embed(normalize_loudness(a_S)) @ embedder.embed(normalize_loudness(b_S)))
