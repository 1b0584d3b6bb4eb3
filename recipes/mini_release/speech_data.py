"""What the language model learns from: codes of all clips at several speeds, and packed batches.

An example is a voice (a stretch of other clips of the speaker), a text, and the codes that say it
(arXiv 2603.25551, 3.1). Every clip is encoded at several speeds, each of which is another voice. A
batch has one of a few fixed shapes, and is a function of seed and step, so that workers may make it
ahead of time.

Shapes: S samples, B batch, L positions, K codebooks, T frames, U frames of all clips, M clips of a
subset.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor
from torch.utils.data import Dataset

from recipes.mini_release.alignment import Transcript
from recipes.mini_release.graph import Tensors
from voxclone.codec.model import Codec
from voxclone.config import Settings
from voxclone.data.corpus import Corpus, Subset
from voxclone.io import atomic_file, tensor_hash
from voxclone.release.params import Params
from voxclone.spec import SAMPLING_RATE
from voxclone.train.sequences import PROMPT_EXTRA, Example, length_of, sequences
from voxclone.tts.prompt import PromptMaker

ENCODED_SECONDS = 120
"""Seconds of audio that are encoded together."""
MOST_PARTS = 5
"""Clips that a voice is joined from at most."""


class ExampleSettings(Settings):
    """Frames of a voice and of what is spoken, and the shapes of batches (items, positions)."""

    voice_frames: tuple[int, int] = (20, 190)
    target_frames: tuple[int, int] = (6, 150)
    shapes: tuple[tuple[int, int], ...] = ((112, 224), (64, 400))
    speaker_balance: float = 0.5


@dataclass(frozen=True)
class SpeedCodes:
    """Codes [U, K] of all clips of a corpus at one speed; clip i begins at `starts[i]`."""

    speed: float
    codes_UK: np.ndarray
    starts: np.ndarray

    def clip(self, index: int) -> np.ndarray:
        """Codes [T, K] (int16) of a clip."""
        codes_TK: np.ndarray = self.codes_UK[self.starts[index] : self.starts[index + 1]]
        return codes_TK


def encode_corpus(
    codec: Codec,
    corpus: Corpus,
    speeds: Sequence[float],
    folder: Path,
    track: Callable[[Iterable[list[int]]], Iterable[list[int]]] = iter,
) -> list[SpeedCodes]:
    """Encode all clips into `folder`, one file for each speed; those that are there are used."""
    state = codec.require_encoder().state_dict()
    book = codec.quantizer.state_dict()
    identity = tensor_hash(*(part[k] for part in (state, book) for k in sorted(part)))
    clips = json.dumps([[clip.id, corpus.length(i)] for i, clip in enumerate(corpus.clips)])
    digest = hashlib.sha256((identity + clips).encode()).hexdigest()[:12]
    found = []
    for speed in speeds:
        path = folder / f"codes-{digest}-{speed:g}.npz"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            codes_UK, starts = _encode_at(codec, corpus, speed, track)
            with atomic_file(path) as file:
                np.savez(file, codes=codes_UK, starts=starts)
        with np.load(path, allow_pickle=False) as stored:
            found.append(SpeedCodes(speed, stored["codes"], stored["starts"]))
    return found


def wave_at(wave_S: Tensor, speed: float, frame_size: int) -> Tensor:
    """A clip played `speed` times as fast (and as high), as much of it as fills whole frames."""
    if speed != 1.0:
        resampled = soxr.resample(wave_S.numpy(), SAMPLING_RATE, SAMPLING_RATE / speed)
        wave_S = torch.from_numpy(resampled)
    return wave_S[: len(wave_S) // frame_size * frame_size]


def _encode_at(
    codec: Codec,
    corpus: Corpus,
    speed: float,
    track: Callable[[Iterable[list[int]]], Iterable[list[int]]],
) -> tuple[np.ndarray, np.ndarray]:
    device = next(codec.parameters()).device
    rows = [np.zeros((0, codec.num_codebooks), np.int16)] * len(corpus)
    for indices in track(_by_length(corpus)):
        waves = [wave_at(corpus.wave(i), speed, codec.frame_size) for i in indices]
        longest = max(codec.frame_size, *(len(wave_S) for wave_S in waves))
        wave_BS = torch.stack([torch.nn.functional.pad(w, (0, longest - len(w))) for w in waves])
        with torch.inference_mode():
            codes_BKT = codec.encode(wave_BS.to(device)).cpu()
        for index, wave_S, codes_KT in zip(indices, waves, codes_BKT, strict=True):
            frames = len(wave_S) // codec.frame_size
            rows[index] = codes_KT[:, :frames].T.numpy().astype(np.int16)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return np.concatenate(rows), starts


def _by_length(corpus: Corpus) -> list[list[int]]:
    """Indices of clips of similar length, as many as are encoded together."""
    batches: list[list[int]] = [[]]
    for index in sorted(range(len(corpus)), key=corpus.length):
        samples = corpus.length(index) * (len(batches[-1]) + 1)
        if batches[-1] and samples > ENCODED_SECONDS * SAMPLING_RATE:
            batches.append([])
        batches[-1].append(index)
    return batches


class SpeechData:
    """Draws examples of the clips of a subset that have a transcript."""

    def __init__(
        self,
        subset: Subset,
        transcripts: dict[int, Transcript],
        codes: Sequence[SpeedCodes],
        frame_rate: float,
        settings: ExampleSettings,
    ) -> None:
        self.codes, self.transcripts, self.settings = codes, transcripts, settings
        self.frame_rate = frame_rate
        self._indices_M = np.array(subset.indices)
        self._cumulated_M = np.cumsum(subset.weights(settings.speaker_balance).numpy())
        self._others = {i: own for own in subset.by_speaker().values() for i in own}

    @property
    def longest(self) -> int:
        """Positions of the longest shape."""
        return max(length for _, length in self.settings.shapes)

    def draw(self, rng: np.random.Generator) -> Example:
        """One example, no longer than the longest shape."""
        example = None
        while example is None:
            example = self._draw(rng)
        return example

    def _draw(self, rng: np.random.Generator) -> Example | None:
        """An example, or None where a clip does not give one."""
        drawn = int(np.searchsorted(self._cumulated_M, rng.random()))
        index = int(self._indices_M[min(drawn, len(self._indices_M) - 1)])
        codes = self.codes[int(rng.integers(len(self.codes)))]
        target_TK, transcript = codes.clip(index), self.transcripts[index]
        others = [i for i in self._others[index] if i != index]
        shortest, longest = self.settings.target_frames
        if not shortest <= len(target_TK) <= longest or not others:
            return None
        shortest, longest = self.settings.voice_frames
        room = self.longest - len(transcript.ids) - len(target_TK) - PROMPT_EXTRA
        wanted = min(int(rng.integers(shortest, longest + 1)), room)
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < wanted and len(parts) < MOST_PARTS:
            parts.append(codes.clip(others[int(rng.integers(len(others)))]))
        if min(wanted, sum(map(len, parts))) < shortest:
            return None
        voice_TK = np.concatenate(parts)
        start = int(rng.integers(max(0, len(voice_TK) - wanted) + 1))
        return Example(
            torch.from_numpy(voice_TK[start : start + wanted].astype(np.int64)),
            transcript.ids,
            torch.from_numpy(target_TK.astype(np.int64)),
            self._positions(transcript, len(target_TK), codes.speed),
        )

    def _positions(self, transcript: Transcript, frames: int, speed: float) -> Tensor:
        """For each target frame, the position in the ids of what is being spoken, or -1."""
        if transcript.seconds is None:
            return torch.full((frames,), -1)
        middle_T = (np.arange(frames) + 0.5) / self.frame_rate * speed
        found_T = np.searchsorted(np.array(transcript.seconds), middle_T, side="right") - 1
        return torch.from_numpy(found_T.clip(min=0))


class SpeechBatches(Dataset[tuple[int, Tensors]]):
    """Batches by step: the number of their shape, and tensors of that shape."""

    def __init__(self, data: SpeechData, prompts: PromptMaker, params: Params, seed: int) -> None:
        self.data, self.prompts, self.params, self.seed = data, prompts, params, seed

    def __getitem__(self, step: int) -> tuple[int, Tensors]:
        rng = np.random.default_rng([self.seed, step])
        shapes = self.data.settings.shapes
        fewest = min(items for items, _ in shapes)
        # Items of all shapes shall be drawn as often as examples have their lengths.
        while True:
            first = self.data.draw(rng)
            number = self._shape_of(first)
            items, length = shapes[number]
            if rng.random() < fewest / items:
                break
        examples = [first]
        while len(examples) < items:
            example = self.data.draw(rng)
            if self._shape_of(example) == number:
                examples.append(example)
        return number, pack(examples, self.prompts, self.params, length)

    def _shape_of(self, example: Example) -> int:
        """The number of the shortest shape that an example fits into."""
        size = length_of(example)
        fitting = [(n, i) for i, (_, n) in enumerate(self.data.settings.shapes) if n >= size]
        return min(fitting)[1]


def pack(examples: Sequence[Example], prompts: PromptMaker, params: Params, length: int) -> Tensors:
    """Examples as tensors [B, L, ...]: `ids` and `codes` (where `is_code`) are read; `target` are
    the shifted codes that a position predicts (where `predicts`); `character` is the position of
    the character that is spoken in the frame it predicts, or -1."""
    batch = sequences(examples, prompts, params, torch.device("cpu"))
    count, books = len(examples), batch.codes_BLK.shape[-1]
    added = length - batch.ids_BL.shape[1]
    target_BLK = torch.zeros(count, length, books, dtype=torch.int16)
    predicts_BL = torch.zeros(count, length, dtype=torch.bool)
    character_BL = torch.full((count, length), -1, dtype=torch.int16)
    rows = (batch.item_N, batch.position_N)
    target_BLK[rows] = batch.target_NK.short()
    predicts_BL[rows] = True
    character_BL[rows] = batch.guide_N.short()
    pad = torch.nn.functional.pad
    return {
        "ids": pad(batch.ids_BL, (0, added)).short(),
        "codes": pad(batch.codes_BLK, (0, 0, 0, added)).short(),
        "is_code": pad(batch.is_code_BL, (0, added)),
        "target": target_BLK,
        "predicts": predicts_BL,
        "character": character_BL,
    }
