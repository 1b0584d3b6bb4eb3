"""Speakers set aside: the encoder is not trained on them, and their voices are cloned at the end.

A manifest that has a split besides `train` keeps its splits. Otherwise a tenth of the speakers, at
most 16, are set aside by a hash of their names.

Shapes: N clips.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxclone.data.manifest import Manifest, stable_hash
from voxclone.io import atomic_file
from voxclone.recover.survey import TRAIN
from voxclone.spec import SAMPLING_RATE

TEST = "test"
SHARE, MOST, LEAST = 0.1, 16, 2
LENGTHS = (10.0, 5.0, 3.0)
"""Seconds of reference: the first that two of the speakers have."""


@dataclass(frozen=True)
class TestSpeakers:
    """The split of the speakers that are set aside, and the seconds of reference that they are
    cloned from; or `why` there are none."""

    __test__ = False

    split: str | None
    seconds: float = 0.0
    why: str = ""


def set_aside(source: Path, out: Path) -> TestSpeakers:
    """Write the manifest `source` to `out`, with the split of each clip."""
    manifest = Manifest(source)
    splits = manifest.splits
    others = [name for name in (TEST, "valid", *sorted(splits)) if name in splits and name != TRAIN]
    speakers: set[str] = set()
    if others:
        chosen_N = manifest.select(split=others[0])
    else:
        speakers = _draw(manifest)
        chosen_N = np.flatnonzero([manifest.speakers[n] in speakers for n in manifest.speaker_N])
    _write(source, out, speakers)
    seconds = _reference(manifest, chosen_N)
    if seconds is None:
        count = len(np.unique(manifest.speaker_N[chosen_N]))
        why = (
            f"of {len(manifest.speakers)} speakers, {count} are set aside, and fewer than two of "
            f"them have {LENGTHS[-1]:g} s of speech"
        )
        return TestSpeakers(None, why=why)
    return TestSpeakers(others[0] if others else TEST, seconds)


def _draw(manifest: Manifest) -> set[str]:
    """Names of speakers; none where fewer than two would be left to train on."""
    totals = np.bincount(manifest.speaker_N, weights=manifest.samples_N) / SAMPLING_RATE
    able = [
        name
        for name, seconds in zip(manifest.speakers, totals, strict=True)
        if seconds >= LENGTHS[-1]
    ]
    count = min(MOST, max(LEAST, round(SHARE * len(manifest.speakers))))
    if len(able) < count or len(manifest.speakers) - count < LEAST:
        return set()
    return set(sorted(able, key=lambda name: (stable_hash(name), name))[:count])


def _reference(manifest: Manifest, indices_N: np.ndarray) -> float | None:
    """Seconds of reference that at least two of the speakers have."""
    if not len(indices_N):
        return None
    totals = np.bincount(manifest.speaker_N[indices_N], weights=manifest.samples_N[indices_N])
    able = [sum(totals >= length * SAMPLING_RATE) >= LEAST for length in LENGTHS]
    return next((length for length, enough in zip(LENGTHS, able, strict=True) if enough), None)


def _write(source: Path, out: Path, speakers: set[str]) -> None:
    """The lines of a manifest with paths that hold from the folder of `out`: relative ones where
    the speech lies in the folder of the run, which may then be moved."""
    run = os.path.abspath(out.parent.parent) + os.sep
    with source.open("rb") as lines, atomic_file(out) as file:
        for line in lines:
            if line.isspace():
                continue
            row = json.loads(line)
            path = os.path.abspath(source.parent / row["path"])
            row["path"] = os.path.relpath(path, out.parent) if path.startswith(run) else path
            if str(row["speaker"]) in speakers:
                row["split"] = TEST
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
