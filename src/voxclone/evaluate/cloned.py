"""Cloned speech in batches, and the level at which speech is compared.

Shapes: S samples, N voice rows, D width, L prompt positions, K code books, T frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.evaluate.signal import active_level
from voxclone.tts.generate import Sampling, generate
from voxclone.tts.text import frame_cap
from voxclone.tts.tts import TTS

LEVEL_DBFS = -23.0
LEAST = 12000  # samples: less is silence


@dataclass(frozen=True)
class Saying:
    """A voice [N, D] that says a text; `reference` is the recording of `speaker` it was made of."""

    speaker: str
    voice_ND: Tensor
    reference_S: Tensor
    text: str
    seed: int


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


def to_level(wave_S: Tensor) -> Tensor:
    """The samples with active speech at -23 dBFS."""
    level = active_level(wave_S)
    return wave_S * 10 ** ((LEVEL_DBFS - level) / 20)
