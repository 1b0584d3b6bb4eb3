"""Triples of one speaker to train a language model on: voice, text, and codes to say.

A stretch of one clip is the voice, another clip's text and codes are what is to be said (arXiv
2603.25551, 3.1). Clips without a transcript are cut in two.

Shapes: K code books, T frames, N clips.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from recipes.mini_release.codebank import CodeBank
from voxclone.config import Settings
from voxclone.data.corpus import Corpus, Subset
from voxclone.train.sequences import PROMPT_EXTRA, Example


class TripleSettings(Settings):
    """Frames of a voice and of what is said, and how often a clip without words is drawn."""

    voice_frames: tuple[int, int] = (20, 110)
    target_frames: tuple[int, int] = (8, 130)
    wordless_share: float = 0.0


@dataclass(frozen=True)
class Transcript:
    """What is said in a clip: text ids, and when (seconds at speed 1) each id is begun."""

    ids: list[int]
    seconds: list[float] | None


@dataclass(frozen=True)
class SpeechData:
    """Codes and transcripts to draw triples from. `wordless` are clips without a transcript, whose
    end is said with their beginning as the voice and no text: more voices to learn from."""

    corpus: Corpus
    subset: Subset
    bank: CodeBank
    transcripts: dict[int, Transcript]
    frame_rate: float
    speakers: dict[str, list[int]] = field(default_factory=dict)
    wordless: Subset | None = None

    def draw(
        self,
        settings: TripleSettings,
        generator: torch.Generator,
        weights_N: Tensor,
        length: int | None = None,
    ) -> Example:
        """One triple: the target by weight, the voice from other clips of the speaker in the same
        speed and colour, cut at random. Where a `length` is given, the voice is as long as makes
        the whole sequence that long, so that a batch has hardly any padding."""
        draw = float(torch.rand(1, generator=generator))
        if self.wordless is not None and draw < settings.wordless_share:
            example = self._wordless(settings, generator, self.wordless)
            if example is not None:
                return example
        while True:
            position = int(torch.multinomial(weights_N, 1, generator=generator))
            index = self.subset.indices[position]
            if index not in self.transcripts:
                continue
            variant = int(torch.randint(len(self.bank.variants), (1,), generator=generator))
            target_TK = self.bank.clip(variant, index)
            low, high = settings.target_frames
            others = [i for i in self.speakers[self.corpus.clips[index].speaker] if i != index]
            if not low <= len(target_TK) <= high or not others:
                continue
            ids = self.transcripts[index].ids
            low, high = settings.voice_frames
            wanted = int(torch.randint(low, high + 1, (1,), generator=generator))
            if length is not None:
                wanted = max(low, min(high, length - len(ids) - len(target_TK) - PROMPT_EXTRA))
            voice_TK = self._voice(generator, others, variant, wanted)
            places_T = self._places(index, variant, len(target_TK))
            return Example(voice_TK, ids, target_TK, places_T)

    def _wordless(
        self, settings: TripleSettings, generator: torch.Generator, wordless: Subset
    ) -> Example | None:
        """A clip without a transcript, cut in two: None if it is too short for that."""
        position = int(torch.randint(len(wordless.indices), (1,), generator=generator))
        variant = int(torch.randint(len(self.bank.variants), (1,), generator=generator))
        codes_TK = self.bank.clip(variant, wordless.indices[position])
        earliest = max(settings.voice_frames[0], len(codes_TK) - settings.target_frames[1])
        latest = min(settings.voice_frames[1], len(codes_TK) - settings.target_frames[0])
        if latest < earliest:
            return None
        at = int(torch.randint(earliest, latest + 1, (1,), generator=generator))
        target_TK = codes_TK[at:]
        return Example(codes_TK[:at], [], target_TK, torch.full((len(target_TK),), -1))

    def _voice(
        self, generator: torch.Generator, others: list[int], variant: int, wanted: int
    ) -> Tensor:
        made = self.bank.variants[variant]
        alike = [
            i
            for i, v in enumerate(self.bank.variants)
            if (v.speed, v.colour) == (made.speed, made.colour)
        ]
        parts: list[Tensor] = []
        while sum(len(part) for part in parts) < wanted and len(parts) < 4:
            other = others[int(torch.randint(len(others), (1,), generator=generator))]
            which = alike[int(torch.randint(len(alike), (1,), generator=generator))]
            parts.append(self.bank.clip(which, other))
        joined = torch.cat(parts)
        spare = max(0, len(joined) - wanted)
        start = int(torch.randint(spare + 1, (1,), generator=generator))
        return joined[start : start + wanted]

    def _places(self, index: int, variant: int, frames: int) -> Tensor:
        seconds = self.transcripts[index].seconds
        if seconds is None:
            return torch.full((frames,), -1)
        chosen = self.bank.variants[variant]
        middle_T = (torch.arange(frames) + 0.5 + chosen.delay) / self.frame_rate * chosen.speed
        begun = torch.tensor(seconds, dtype=middle_T.dtype)
        return (torch.searchsorted(begun, middle_T, right=True) - 1).clamp(min=0)
