"""Speech for training: the clips of a manifest, and random crops of them.

Packing decodes every clip once, to 24 kHz mono 16-bit samples in one file beside an index; training
reads crops from a memory map of it. Clips of `voxclone data prepare` need no packing (`prepared`).
Batches are drawn from a generator seeded by (seed, step): a resumed run draws what the interrupted
one would have drawn, and no state of the data is saved.

Shapes: B batch, S samples, N clips.
"""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from voxclone.audio.files import read_wave
from voxclone.data.manifest import Clip, ManifestRow, stable_hash
from voxclone.data.rules import MISSING_SHARE, too_many
from voxclone.errors import AudioError, ConfigError
from voxclone.io import atomic_file
from voxclone.readers import read_json
from voxclone.records import Record, parse_record
from voxclone.spec import SAMPLING_RATE

FULL_SCALE = 32767.0
MAX_EXAMPLES = 3  # of the clips that are left out
LEFT_OUT = "left_out.json"


class Corpus(ABC):
    """Clips and their samples at 24 kHz. Clips of one speaker have the same number in `speaker_N`;
    `lengths_N` are in samples; `id_N` are hashes of ids (`manifest.stable_hash`)."""

    clips: Sequence[Clip]
    lengths_N: np.ndarray
    speaker_N: np.ndarray
    id_N: np.ndarray

    def __len__(self) -> int:
        return len(self.clips)

    def length(self, index: int) -> int:
        """Samples in a clip."""
        return int(self.lengths_N[index])

    @abstractmethod
    def read(self, index: int, start: int, count: int) -> np.ndarray:
        """Samples [S] of a clip as float32, all of them within it."""

    def wave(self, index: int, start: int = 0, count: int | None = None) -> Tensor:
        """Samples [S] of a clip as float32; silence beyond its end."""
        left = self.length(index) - start
        count = left if count is None else count
        wave_S = torch.from_numpy(self.read(index, start, max(0, min(left, count))))
        return torch.nn.functional.pad(wave_S, (0, count - len(wave_S)))

    def subset(self, keep: Callable[[Clip], bool]) -> "Subset":
        """The clips for which `keep` holds, by speaker."""
        return Subset(self, [i for i, clip in enumerate(self.clips) if keep(clip)])


class PackedCorpus(Corpus):
    """Clips whose samples lie one after another in a memory map of 16-bit integers. `left_out` has
    the reasons, by id, why other clips are not among them."""

    def __init__(
        self,
        clips: Sequence[Clip],
        starts: Sequence[int],
        samples: np.ndarray,
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        self.clips = list(clips)
        self.starts = np.asarray(starts, dtype=np.int64)  # one more than clips: the end comes last
        self.lengths_N = np.diff(self.starts)
        known: dict[str, int] = {}
        numbers = [known.setdefault(clip.speaker, len(known)) for clip in self.clips]
        self.speaker_N = np.array(numbers, dtype=np.int32)
        self.id_N = np.array([stable_hash(clip.id) for clip in self.clips], dtype=np.int64)
        self.samples = samples
        self.left_out = dict(left_out or {})

    def read(self, index: int, start: int, count: int) -> np.ndarray:
        begin = int(self.starts[index]) + start
        values: np.ndarray = self.samples[begin : begin + count].astype(np.float32) / FULL_SCALE
        return values


@dataclass(frozen=True)
class Subset:
    """Some clips of a corpus, to draw from."""

    corpus: Corpus
    indices: list[int]

    def __post_init__(self) -> None:
        if not self.indices:
            raise ConfigError("No clip of the manifest fits the selection of the config.")

    @property
    def seconds(self) -> float:
        return int(self.corpus.lengths_N[self.indices].sum()) / SAMPLING_RATE

    def identity(self) -> dict[str, Any]:
        """Numbers of clips and hours, and a hash of all that draws depend on: indices, ids, lengths
        (samples) and speakers."""
        _, first_R, speaker_N = np.unique(self._speakers(), return_index=True, return_inverse=True)
        rank_R = np.argsort(np.argsort(first_R))  # speakers in the order of their first clips
        indices_N = np.asarray(self.indices)
        columns = (
            indices_N,
            self.corpus.id_N[indices_N],
            self.corpus.lengths_N[indices_N],
            rank_R[speaker_N],
        )
        digest = hashlib.sha256()
        for column_N in columns:
            digest.update(np.ascontiguousarray(column_N, dtype="<i8").tobytes())
        hours = round(self.seconds / 3600, 3)
        return {"clips": len(self.indices), "hours": hours, "hash": digest.hexdigest()[:16]}

    def by_speaker(self) -> dict[str, list[int]]:
        speakers: dict[int, list[int]] = {}
        for index, speaker in zip(self.indices, self._speakers().tolist(), strict=True):
            speakers.setdefault(speaker, []).append(index)
        return {self.corpus.clips[own[0]].speaker: own for own in speakers.values()}

    def weights(self, speaker_balance: float) -> Tensor:
        """Probability of each clip: its length times (its speaker's total length)^-speaker_balance.
        With 0 every second is drawn equally often, with 1 every speaker."""
        lengths_N = self.corpus.lengths_N[self.indices].astype(np.float64)
        speaker_N = self._speakers()
        totals = np.bincount(speaker_N, weights=lengths_N)
        weights_N = lengths_N * totals[speaker_N] ** -speaker_balance
        return torch.from_numpy(weights_N / weights_N.sum())

    def _speakers(self) -> np.ndarray:
        numbers: np.ndarray = self.corpus.speaker_N[self.indices]
        return numbers

    def crops(
        self,
        count: int,
        samples: int,
        generator: torch.Generator,
        weights_N: Tensor,
        *,
        grid: int = 1,
        part: slice = slice(None),
    ) -> "Crops":
        """Random crops whose starts are multiples of `grid`, padded with silence where a clip is
        shorter. All are drawn; those of `part` are read and returned."""
        drawn = torch.multinomial(weights_N, count, replacement=True, generator=generator)
        indices = [self.indices[position] for position in drawn.tolist()]
        starts = []
        for index in indices:
            spare = max(0, self.corpus.length(index) - samples)
            starts.append(int(torch.randint(spare // grid + 1, (1,), generator=generator)) * grid)
        indices, starts = indices[part], starts[part]
        waves = [self.corpus.wave(i, s, samples) for i, s in zip(indices, starts, strict=True)]
        return Crops(indices, starts, torch.stack(waves))


@dataclass(frozen=True)
class Crops:
    """Crops [B, S] of clips: which clips, and where in each the crop begins (samples)."""

    indices: list[int]
    starts: list[int]
    wave_BS: Tensor


def check_left_out(reasons: Sequence[str], clips: int) -> str | None:
    """How many of all `clips` cannot be read, with the first of the reasons (a sentence each).
    Raises ConfigError if they are too many to be left out."""
    if not reasons:
        return None
    count, first = (
        f"{len(reasons):,} of {clips:,} clips cannot be read",
        " ".join(reasons[:MAX_EXAMPLES]),
    )
    if too_many(len(reasons), clips):
        raise ConfigError(
            f"{count}, and at most {MISSING_SHARE:.0%} may be left out: restore them, or remove "
            f"their lines. The first: {first}"
        )
    return f"{count} and are left out. The first: {first}"


def pack(
    clips: Sequence[Clip],
    folder: str | Path,
    track: Callable[[Iterable[Clip]], Iterable[Clip]] = iter,
) -> PackedCorpus:
    """Decode clips into `folder` and open them. A second call opens what is there, unless a line of
    the manifest has changed, or a clip that was left out can be decoded now.

    Clips that cannot be decoded are left out and named in `left_out.json`. Raises ConfigError if
    they are too many, and for ids that occur twice. `track` may wrap the clips, to show progress.
    """
    folder = Path(folder)
    twice = [name for name, count in Counter(clip.id for clip in clips).items() if count > 1]
    if twice:
        raise ConfigError(
            f"The id {twice[0]} occurs more than once in the manifest: give each clip its own."
        )
    lines = [json.dumps(_row(clip), sort_keys=True) for clip in clips]
    identity = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    index_path = folder / "index.json"
    if index_path.exists():
        index = _read_index(folder)
        if index.identity == identity:
            packed = _open(folder, index)
            if not any(_is_readable(clip) for clip in clips if clip.id in packed.left_out):
                return packed
    folder.mkdir(parents=True, exist_ok=True)
    kept, starts, left_out = [], [0], {}
    with atomic_file(folder / "samples.i16") as file:
        for clip in track(clips):
            try:
                wave = read_wave(clip.path)
            except AudioError as error:
                left_out[clip.id] = str(error)
                continue
            file.write((wave.clip(-1, 1) * FULL_SCALE).round().astype("<i2").tobytes())
            kept.append(clip)
            starts.append(starts[-1] + len(wave))
        check_left_out([*left_out.values()], len(clips))
        index_path.unlink(missing_ok=True)  # it belongs to the older samples
    (folder / LEFT_OUT).write_text(json.dumps(left_out, indent=1), encoding="utf-8")
    rows = [_row(clip) for clip in kept]
    values = {"identity": identity, "starts": starts, "clips": rows}
    with atomic_file(index_path) as file:
        file.write(json.dumps(values).encode())
    return _open(folder, _read_index(folder))


def _row(clip: Clip) -> dict[str, Any]:
    return asdict(clip) | {"path": str(clip.path)}


def _is_readable(clip: Clip) -> bool:
    try:
        read_wave(clip.path)
    except AudioError:
        return False
    return True


class _Index(Record):
    """The clips of a packed corpus, and the first sample of each; the end of the last comes last.
    `left_out` is a file of its own."""

    identity: str
    starts: list[Annotated[int, Field(ge=0, lt=2**48)]]
    clips: list[ManifestRow]
    left_out: dict[str, str]


def _read_index(folder: Path) -> _Index:
    """The index of a folder. Raises ConfigError for a damaged one."""
    samples, path = folder / "samples.i16", folder / "index.json"
    try:
        values = read_json(path)
        if isinstance(values, dict):
            values |= {"left_out": read_json(folder / LEFT_OUT)}
        index = parse_record(_Index, values, str(path))
        whole = os.path.isfile(samples) and index.starts[-1:] == [os.path.getsize(samples) // 2]
        if not whole or len(index.starts) != len(index.clips) + 1 or not _is_sorted(index.starts):
            raise ConfigError(f"{path} does not fit {samples}.")
    except ConfigError as error:
        raise ConfigError(f"{error} Delete {folder}: its clips are packed anew.") from None
    return index


def _is_sorted(values: Sequence[int]) -> bool:
    return all(one <= other for one, other in pairwise(values))


def _open(folder: Path, index: _Index) -> PackedCorpus:
    clips = [row.clip(Path()) for row in index.clips]
    samples = np.memmap(folder / "samples.i16", dtype="<i2", mode="r")
    return PackedCorpus(clips, index.starts, samples, index.left_out)
