"""Generated speech: its parts, and their choice among several draws.

Shapes: S samples, K codebooks, T frames.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from voxclone.audio.writing import write_wave
from voxclone.tts.endings import fade, is_silent, speech_end
from voxclone.tts.text import Part, frame_cap

MAX_DRAWS = 4
"""Draws of a part: the first, and three more where that is silent or does not end."""

Generate = Callable[[str, int], Iterator[tuple[Tensor, Tensor]]]
"""From a text and a seed to consecutive waves [S] and their codes [K, T]."""


@dataclass(frozen=True, eq=False)
class SpokenPart:
    """A part of a text as it was spoken. `truncated` if it reached the frame cap before the model
    ended it, and `silent` if nothing in it is as loud and as long as a word (`endings.is_silent`);
    `rejected` are the seeds of earlier draws that were one or the other."""

    text: str
    pause: float  # seconds before it
    seed: int
    wave_S: Tensor = field(repr=False)
    codes_KT: Tensor = field(repr=False)
    truncated: bool
    silent: bool
    rejected: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Speech:
    """The waveform of a text and its parts; `seconds` is the time it took."""

    wave_S: Tensor = field(repr=False)
    sampling_rate: int
    parts: tuple[SpokenPart, ...]
    seed: int
    cfg: float
    seconds: float

    @property
    def duration(self) -> float:
        """Seconds of sound."""
        return len(self.wave_S) / self.sampling_rate

    @property
    def codes(self) -> list[Tensor]:
        """Codes [K, T] of each part."""
        return [part.codes_KT for part in self.parts]

    @property
    def truncated(self) -> list[str]:
        """The texts that reached the frame cap before the model ended them."""
        return [part.text for part in self.parts if part.truncated]

    @property
    def silent(self) -> bool:
        """Whether no part has speech in it."""
        return all(part.silent for part in self.parts)

    def save(self, path: Path | str) -> int:
        """Write a sound file; gives the number of samples that were clipped. Raises AudioError."""
        return write_wave(path, self.wave_S.numpy(), self.sampling_rate)


def speak_part(
    part: Part, seeds: Sequence[int], generate: Generate, rate: int, frame_rate: float
) -> SpokenPart:
    """Draw a part with each of the seeds until it is spoken and ends by itself. If none does, the
    first draw that is not silent is taken, else the first. Silence after the speech of a draw that
    did not end is cut."""
    draws: list[SpokenPart] = []
    for seed in seeds:
        draws.append(_draw(part, seed, generate, rate, frame_rate))
        if not draws[-1].truncated and not draws[-1].silent:
            break
    best = min(draws, key=lambda draw: (draw.silent, draw.truncated))
    return replace(best, rejected=tuple(draw.seed for draw in draws if draw is not best))


def join_parts(parts: Sequence[SpokenPart], rate: int) -> Tensor:
    """The wave [S] of all parts with the pauses between them, each faded in and out."""
    pieces: list[Tensor] = []
    for part in parts:
        pieces.append(torch.zeros(round(part.pause * rate)))
        pieces.append(fade(part.wave_S, rate))
    return torch.cat(pieces) if pieces else torch.zeros(0)


def _draw(part: Part, seed: int, generate: Generate, rate: int, frame_rate: float) -> SpokenPart:
    waves, codes = list[Tensor](), list[Tensor]()
    for wave_S, codes_KT in generate(part.text, seed):
        waves.append(wave_S)
        codes.append(codes_KT)
    if not waves:
        nothing = torch.zeros(0, 0, dtype=torch.long)
        return SpokenPart(part.text, part.pause, seed, torch.zeros(0), nothing, False, True)
    wave_S, codes_KT = torch.cat(waves), torch.cat(codes, dim=-1)
    truncated = codes_KT.shape[-1] >= frame_cap(part.text, frame_rate)
    if truncated:
        frame_size = len(wave_S) // codes_KT.shape[-1]
        frames = -(-speech_end(wave_S, rate) // frame_size)
        wave_S, codes_KT = wave_S[: frames * frame_size], codes_KT[:, :frames]
    silent = is_silent(wave_S, rate)
    return SpokenPart(part.text, part.pause, seed, wave_S, codes_KT, truncated, silent)
