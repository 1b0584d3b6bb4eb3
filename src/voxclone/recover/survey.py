"""What a source of speech holds, before anything is done with it.

Recordings of a folder are counted, and the headers of some are read: the hours are an estimate.

Shapes: N clips.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile

from voxclone.data.manifest import Item, Manifest
from voxclone.data.sources import open_source
from voxclone.data.speakers import Sizes
from voxclone.errors import ConfigError, VoxcloneError
from voxclone.spec import FRAME_SIZE, SAMPLING_RATE

MOST_HEADERS = 400
TRAIN = "train"


@dataclass(frozen=True)
class Survey:
    """Amounts of speech. `labelable` clips have a text and another clip of their speaker, as the
    loss `pseudo_label` needs; `clonable` speakers have what the speaker loss needs
    (`speakers.SpeakerPool`). `exact` unless hours were estimated."""

    clips: int
    hours: float
    speakers: int
    labelable: int
    clonable: int
    exact: bool

    def sentence(self) -> str:
        """The amounts in words."""
        about = "" if self.exact else "about "
        return f"{about}{self.hours:.2f} h in {self.clips:,} clips of {self.speakers:,} speakers"


def survey_manifest(path: Path, split: str | None = TRAIN) -> Survey:
    """The clips of a split of a manifest, or of all splits."""
    manifest = Manifest(path)
    indices_N = manifest.select(split=split)
    texts = [bool(manifest[index].text) for index in indices_N.tolist()]
    lengths_N = manifest.samples_N[indices_N]
    return _survey(manifest.speaker_N[indices_N], lengths_N, np.array(texts, dtype=bool), True)


def survey_folder(path: Path) -> Survey:
    """The recordings below a folder. Raises ConfigError where there is none."""
    items = list(open_source(path).items())
    if not items:
        raise ConfigError(
            f"{path} holds no recording: name a folder with a folder for each speaker, or a "
            "manifest (JSON lines)."
        )
    names: dict[str, int] = {}
    speaker_N = np.array([names.setdefault(item.speaker, len(names)) for item in items])
    lengths_N = _lengths(items)
    texts_N = np.array([_has_text(item) for item in items])
    return _survey(speaker_N, lengths_N, texts_N, len(items) <= MOST_HEADERS)


def _survey(
    speaker_N: np.ndarray, lengths_N: np.ndarray, text_N: np.ndarray, exact: bool
) -> Survey:
    """Amounts of clips of given speakers, lengths (samples) and texts."""
    if not len(speaker_N):
        return Survey(0, 0.0, 0, 0, 0, exact)
    counts = np.bincount(speaker_N)
    totals = np.bincount(speaker_N, weights=lengths_N)
    sizes = Sizes()
    low, high = (frames * FRAME_SIZE for frames in sizes.target_frames)
    spare_N = totals[speaker_N] - sizes.voice_frames[1] * FRAME_SIZE
    fits_N = text_N & (low <= lengths_N) & (lengths_N <= high) & (lengths_N <= spare_N)
    return Survey(
        clips=len(speaker_N),
        hours=float(lengths_N.sum()) / SAMPLING_RATE / 3600,
        speakers=int((counts > 0).sum()),
        labelable=int((text_N & (counts[speaker_N] > 1)).sum()),
        clonable=len(np.unique(speaker_N[fits_N])),
        exact=exact,
    )


def _lengths(items: Sequence[Item]) -> np.ndarray:
    """Samples at 24 kHz of each item: of files whose headers are not read, the mean of others."""
    step = max(1, len(items) // MOST_HEADERS)
    known: dict[int, float] = {}
    for number in islice(range(0, len(items), step), MOST_HEADERS):
        item = items[number]
        seconds = item.seconds
        if seconds is None:
            try:
                info = soundfile.info(os.fsencode(item.path))
            except (soundfile.SoundFileError, OSError):
                continue  # the preparation counts and names it
            seconds = info.frames / info.samplerate - item.start
        known[number] = seconds * SAMPLING_RATE
    mean = float(np.mean(list(known.values()))) if known else 0.0
    return np.array([known.get(number, mean) for number in range(len(items))])


def _has_text(item: Item) -> bool:
    try:
        return bool(item.transcript())
    except VoxcloneError:
        return False  # likewise
