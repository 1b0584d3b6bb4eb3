"""Synthesis of many texts in cloned voices, and its speaking rate, level and endings.

Shapes: S samples, N voice embeddings, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.audio.loudness import MIN_SAMPLES, SILENCE, active_level
from voxclone.evaluate.progress import Track, untracked
from voxclone.evaluate.statistics import Interval, bootstrap, bootstrap_known
from voxclone.spec import SAMPLING_RATE
from voxclone.tts.batch import Sampling
from voxclone.tts.generate import Generated, generate
from voxclone.tts.text import expected_seconds, frame_cap
from voxclone.tts.tts import TTS

BATCH = 16  # texts that are spoken together
EARLY_PACE = 0.5
"""Speech that takes less than half of the seconds expected of its text has stopped early."""


@dataclass(frozen=True)
class SynthesisRequest:
    """A text for a speaker's voice [N, D]."""

    speaker: str
    voice_ND: Tensor
    text: str
    seed: int


@dataclass(frozen=True)
class Synthesis:
    """A text in a speaker's voice: samples [S] on the CPU, none for silence, and whether the model
    ended by itself (None where that is unknown, as for files of other programs)."""

    speaker: str
    text: str
    wave_S: Tensor
    ended: bool | None


def generate_codes(
    model: TTS, requests: Sequence[SynthesisRequest], cfg: float = 1.2
) -> list[Generated]:
    """The codes of all requests as one batch."""
    prompts = [model.prompt(each.text, each.voice_ND) for each in requests]
    caps = [frame_cap(each.text, model.codec.frame_rate) for each in requests]
    seeds = [each.seed for each in requests]
    return generate(model.backbone, model.head, prompts, seeds, caps, Sampling(cfg))


def synthesize(
    model: TTS,
    requests: Sequence[SynthesisRequest],
    *,
    cfg: float = 1.2,
    track: Track = untracked,
) -> list[Synthesis]:
    """The speech of each request; a result too short to be speech counts as silence."""
    results = []
    for start in track(range(0, len(requests), BATCH), "synthesis"):
        group = requests[start : start + BATCH]
        for each, made in zip(group, generate_codes(model, group, cfg), strict=True):
            with torch.inference_mode():
                wave_S = model.codec.decode(made.codes_KT[None].to(model.device))[0].cpu()
            wave_S = without_silence(wave_S, MIN_SAMPLES)
            results.append(Synthesis(each.speaker, each.text, wave_S, not made.truncated))
    return results


def without_silence(wave_S: Tensor, least: int = 1) -> Tensor:
    """The samples, or none of them if they are fewer than `least` or digital silence."""
    sounds = len(wave_S) >= least and float(wave_S.abs().max()) >= SILENCE
    return wave_S if sounds else wave_S[:0]


@dataclass(frozen=True)
class SpeechStats:
    """`ended`: share that ended by itself (None if unknown). `early`: share that stopped before
    half of the seconds expected of its text. `pace`: seconds over those expected. `level`: of
    active speech, dBFS (None if all is silent)."""

    ended: Interval | None
    early: Interval
    pace: Interval
    level: Interval | None


def speech_stats(syntheses: Sequence[Synthesis]) -> SpeechStats:
    """Endings, pace and level; means over speakers."""
    speakers = [each.speaker for each in syntheses]
    pace = [len(each.wave_S) / SAMPLING_RATE / expected_seconds(each.text) for each in syntheses]
    levels = [active_level(each.wave_S) if len(each.wave_S) else None for each in syntheses]
    return SpeechStats(
        ended=bootstrap_known([each.ended for each in syntheses], speakers),
        early=bootstrap([float(each < EARLY_PACE) for each in pace], speakers),
        pace=bootstrap(pace, speakers),
        level=bootstrap_known(levels, speakers),
    )
