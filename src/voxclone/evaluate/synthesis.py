"""How something was said: by whose voice, for how long, how loud, and whether it came to an end.

What `evaluate voices` and `evaluate speech` have in common. Every figure is a mean over speakers
with an interval; *gain* is likeness to the own reference minus likeness to those of the others
(`matched` and `shuffled`): an average voice is alike to everybody.

Shapes: S samples, D width of an embedding, N speakers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.audio.files import SAMPLING_RATE
from voxclone.evaluate.cloned import LEAST, Saying, to_level
from voxclone.evaluate.signal import active_level
from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.models.speaker_encoder import SpeakerEmbedder
from voxclone.tts.text import expected_seconds

EARLY_PACE = 0.5
"""Speech of less than half of the seconds that its text takes has stopped before its end."""


@dataclass(frozen=True)
class Said:
    """A text as it was said in a speaker's voice: samples [S], none of them where nothing sounds,
    and whether it ended by itself (None where a file does not tell)."""

    speaker: str
    text: str
    wave_S: Tensor
    ended: bool | None


def as_said(sayings: Sequence[Saying], spoken: Sequence[tuple[Tensor, bool]]) -> list[Said]:
    """Sayings as they were said (`cloned.say`); what is too short to be speech has no samples."""
    return [
        Said(each.speaker, each.text, wave_S if len(wave_S) >= LEAST else wave_S[:0], ended)
        for each, (wave_S, ended) in zip(sayings, spoken, strict=True)
    ]


@dataclass(frozen=True)
class Manner:
    """`ended` is the share that ended by itself (None where nobody knows), `early` the share that
    stopped before half of the seconds expected of its text, `pace` the seconds over those expected,
    `level` that of active speech in dBFS."""

    ended: Interval | None
    early: Interval
    pace: Interval
    level: Interval | None


def manner_of(said: Sequence[Said]) -> Manner:
    """End, pace and level of what was said."""
    names = [each.speaker for each in said]
    pace = [len(each.wave_S) / SAMPLING_RATE / expected_seconds(each.text) for each in said]
    known = [(each.speaker, each.ended) for each in said if each.ended is not None]
    loud = [(each.speaker, active_level(each.wave_S)) for each in said if len(each.wave_S)]
    return Manner(
        ended=bootstrap([float(end) for _, end in known], [n for n, _ in known]) if known else None,
        early=bootstrap([float(each < EARLY_PACE) for each in pace], names),
        pace=bootstrap(pace, names),
        level=bootstrap([level for _, level in loud], [n for n, _ in loud]) if loud else None,
    )


def likenesses(
    said: Sequence[Said], references: Mapping[str, Tensor], embedder: SpeakerEmbedder
) -> tuple[list[float], list[float]]:
    """Of each thing said the cosine to its speaker's reference, and the mean of those to the
    others' (0 where there are none). `references` are embeddings [D] by speaker. What does not
    sound counts as 0."""
    order = {name: place for place, name in enumerate(references)}
    references_ND = torch.stack(list(references.values()))
    matched, shuffled = [], []
    for each in said:
        own_likeness = other_likeness = 0.0
        if len(each.wave_S):
            alike_N = references_ND @ embedder.embed(to_level(each.wave_S))
            own_likeness = float(alike_N[order[each.speaker]])
            others = max(1, len(alike_N) - 1)
            other_likeness = (float(alike_N.sum()) - own_likeness) / others
        matched.append(own_likeness)
        shuffled.append(other_likeness)
    return matched, shuffled


def likeness_of(
    said: Sequence[Said], references: Mapping[str, Tensor], embedder: SpeakerEmbedder
) -> dict[str, Interval]:
    """Means over speakers of `likenesses` (`matched`, `shuffled`) and of their difference
    (`gain`); the last two are left out where there is only one speaker."""
    matched, shuffled = likenesses(said, references, embedder)
    names = [each.speaker for each in said]
    found = {"matched": bootstrap(matched, names)}
    if len(references) > 1:
        gain = [a - b for a, b in zip(matched, shuffled, strict=True)]
        found |= {"shuffled": bootstrap(shuffled, names), "gain": bootstrap(gain, names)}
    return found
