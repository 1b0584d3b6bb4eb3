"""Speakers who can be cloned in training: their voices, target clips, and negatives.

Shapes: I items, R speakers to choose from, S samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.data.corpus import Corpus, Subset
from voxclone.errors import ConfigError


@dataclass(frozen=True)
class Sizes:
    """`items` speakers are cloned in a step, and compared with each other and `negatives` more.
    Lengths are in frames: of the voice (drawn for each step), of target clips, of the
    stretch of each clone that is embedded, and of negatives. `guidance` is drawn between the two
    for each item."""

    items: int = 8
    negatives: int = 24
    voice_frames: tuple[int, int] = (60, 150)
    target_frames: tuple[int, int] = (32, 90)
    crop_frames: int = 32
    negative_frames: int = 50
    guidance: tuple[float, float] = (1.0, 3.0)

    def __post_init__(self) -> None:
        if self.crop_frames > self.target_frames[0]:
            raise ValueError("`crop_frames` may not be more than the shortest of `target_frames`")


@dataclass(frozen=True)
class SpeakerPool:
    """Speakers who can be cloned: all clips of each, and those that may be targets."""

    corpus: Corpus
    clips: dict[str, list[int]]
    targets: dict[str, list[int]]

    @classmethod
    def of(cls, speech: Subset, sizes: Sizes, frame_size: int) -> "SpeakerPool":
        """Speakers with a clip that has a text and a fitting length, and enough besides it for the
        longest voice. Raises ConfigError if there are too few of them."""
        corpus, clips, targets = speech.corpus, {}, {}
        low, high = (frames * frame_size for frames in sizes.target_frames)
        most = sizes.voice_frames[1] * frame_size
        for name, own in speech.by_speaker().items():
            lengths = {i: corpus.length(i) for i in own}
            spare = sum(lengths.values()) - most
            fitting = [
                i for i in own
                if low <= lengths[i] <= high and lengths[i] <= spare and corpus.clips[i].text
            ]  # fmt: skip
            if fitting:
                clips[name], targets[name] = own, fitting
        wanted = sizes.items + sizes.negatives
        if len(clips) < wanted:
            raise ConfigError(
                f"The weight `speaker_contrastive` needs {wanted} speakers with a text to say and "
                f"{most / frame_size:g} frames of other speech; this speech has {len(clips)}: give "
                "more, or set `weights.speaker_contrastive` to 0."
            )
        return cls(corpus, clips, targets)


@dataclass(frozen=True)
class SpeakerBatch:
    """A step's material. `voice_IS` and the negatives' [R - I, S] are recordings; `targets` are
    clips [S] of whole frames, and `texts` their words."""

    voice_IS: Tensor
    negative_RS: Tensor
    targets: list[Tensor]
    texts: list[str]


def draw_speakers(
    pool: SpeakerPool, sizes: Sizes, frame_size: int, generator: torch.Generator
) -> SpeakerBatch:
    """Speakers, their voices, target clips, and negatives. All is drawn, whichever part of it a
    process then uses."""
    names = list(pool.clips)
    wanted = sizes.items + sizes.negatives
    chosen = [names[i] for i in torch.randperm(len(names), generator=generator)[:wanted].tolist()]
    low, high = sizes.voice_frames
    samples = int(torch.randint(low, high + 1, (1,), generator=generator)) * frame_size
    voices, targets, texts = [], [], []
    for name in chosen[: sizes.items]:
        able = pool.targets[name]
        clip = able[int(torch.randint(len(able), (1,), generator=generator))]
        whole = pool.corpus.length(clip) // frame_size * frame_size
        targets.append(pool.corpus.wave(clip, 0, whole))
        texts.append(pool.corpus.clips[clip].text or "")
        others = [i for i in pool.clips[name] if i != clip]
        voices.append(_joined(pool.corpus, others, samples, generator))
    short = sizes.negative_frames * frame_size
    negatives = [
        _joined(pool.corpus, pool.clips[name], short, generator) for name in chosen[sizes.items :]
    ]
    empty_RS = torch.zeros(0, short)
    return SpeakerBatch(
        torch.stack(voices), torch.stack(negatives) if negatives else empty_RS, targets, texts
    )


def _joined(corpus: Corpus, own: Sequence[int], samples: int, generator: torch.Generator) -> Tensor:
    """So many samples out of clips in random order, from a random position on."""
    parts: list[Tensor] = []
    for number in torch.randperm(len(own), generator=generator).tolist():
        parts.append(corpus.wave(own[number]))
        if sum(len(part) for part in parts) >= samples:
            break
    wave_S = torch.cat(parts)
    wave_S = F.pad(wave_S, (0, max(0, samples - len(wave_S))))
    start = int(torch.randint(len(wave_S) - samples + 1, (1,), generator=generator))
    return wave_S[start : start + samples]
