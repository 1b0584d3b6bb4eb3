"""The files of a report, and the clips that its page plays.

Shapes: S samples.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from voxclone.errors import os_errors
from voxclone.evaluate.report.page import AudioComparison, page
from voxclone.evaluate.speechset import SpeechSet
from voxclone.io import atomic_file

SHOWN_CLIPS = 4
SHOWN_SECONDS = 6


def write_report(
    report: Mapping[str, Any],
    clips: Sequence[AudioComparison],
    out: Path,
    baseline: Mapping[str, Any] | None = None,
) -> None:
    """Write report.json and report.html to the folder `out`, each complete or not at all."""
    with os_errors(f"{out} cannot be made"):
        out.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.json": json.dumps(report, indent=1, allow_nan=False),
        "report.html": page(report, clips, baseline),
    }
    for name, text in texts.items():
        with atomic_file(out / name) as file:
            file.write(text.encode())


def reconstructions(
    reconstruct: Callable[[Tensor], Tensor], speech: SpeechSet, rate: int
) -> list[AudioComparison]:
    """The first clip of some speakers beside its reconstruction."""
    shown = []
    for name, own in list(speech.by_speaker().items())[:SHOWN_CLIPS]:
        wave_S = own[0].wave_S[: SHOWN_SECONDS * rate]
        waves = {"recording": wave_S, "decoded": reconstruct(wave_S)}
        shown.append(AudioComparison(name, waves))
    return shown
