"""Speech of cloned voices, in batches: how long, how loud, and whether it came to an end.

What `evaluate voices` and `evaluate speech` have in common. Every figure is a mean over speakers
with an interval; *gain* is likeness to the own reference minus likeness to those of the others
(`matched` and `shuffled`): an average voice is alike to everybody.

Shapes: S samples, D width of an embedding, N speakers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.audio.loudness import MIN_SAMPLES, active_level
from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.spec import SAMPLING_RATE
from voxclone.tts.generate import Sampling, generate
from voxclone.tts.text import expected_seconds, frame_cap
from voxclone.tts.tts import TTS

EARLY_PACE = 0.5
"""Speech of less than half of the seconds that its text takes has stopped before its end."""


@dataclass(frozen=True)
class Saying:
    """A voice [N, D] that says a text; `reference` is the recording of `speaker` it was made of."""

    speaker: str
    voice_ND: Tensor
    reference_S: Tensor
    text: str
    seed: int


@dataclass(frozen=True)
class Said:
    """A text as it was said in a speaker's voice: samples [S], none of them where nothing sounds,
    and whether it ended by itself (None where a file does not tell)."""

    speaker: str
    text: str
    wave_S: Tensor
    ended: bool | None


def say(
    speaker: TTS, sayings: Sequence[Saying], *, cfg: float = 1.2, batch: int = 16
) -> list[tuple[Tensor, bool]]:
    """Waveform [S] of each saying, on the CPU, and whether it ended by itself."""
    results = []
    for start in range(0, len(sayings), batch):
        group = sayings[start : start + batch]
        prompts = [speaker.prompt(item.text, item.voice_ND) for item in group]
        caps = [frame_cap(item.text, speaker.codec.frame_rate) for item in group]
        seeds = [item.seed for item in group]
        spoken = generate(speaker.backbone, speaker.head, prompts, seeds, caps, Sampling(cfg))
        with torch.inference_mode():
            for made in spoken:
                wave_S = speaker.codec.decode(made.codes_KT[None].to(speaker.device))[0]
                results.append((wave_S.cpu(), not made.truncated))
    return results


def as_said(sayings: Sequence[Saying], spoken: Sequence[tuple[Tensor, bool]]) -> list[Said]:
    """Sayings as they were said (`say`); what is too short to be speech has no samples."""
    return [
        Said(each.speaker, each.text, wave_S if len(wave_S) >= MIN_SAMPLES else wave_S[:0], ended)
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
