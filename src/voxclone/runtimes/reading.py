"""What a runtime would do with a voice, and what all runtimes need of it.

Shapes: N rows, D width, K code books.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from voxclone.release.release import Release, load_table
from voxclone.release.tensors import codebook_offsets
from voxclone.spec import AROUND_TEXT
from voxclone.voice.rows import voice_rows

MIN_SPEECH = 25  # frames: below 2 s there is no room for a sentence


@dataclass(frozen=True)
class Reading:
    """What a runtime makes of the voice `name`.

    `rows` is how many rows it would put into the prompt, None if the voice is not used at all;
    `places` is how many places the prompt has for them. `rows_ND` are the rows themselves, where
    the file holds them. A trap is a sentence for each reason why the voice is not heard as meant; a
    note changes nothing of what is heard.
    """

    name: str
    source: str
    rows: int | None = None
    places: int | None = None
    rows_ND: Tensor | None = None
    traps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def heard(self) -> bool:
        """Whether the voice would be heard as meant."""
        return self.rows is not None and not self.traps


def of_rows(
    name: str, source: str, rows_ND: Tensor | None, places: int | None, traps: list[str]
) -> Reading:
    """The reading of a runtime that puts `rows_ND` (none if there are none) into `places`."""
    rows = None if rows_ND is None else len(rows_ND)
    return Reading(name, source, rows, places, rows_ND, tuple(traps))


def end_row(release: Release) -> Tensor:
    """The END row [D] with which every voice of a release ends (checkpoint spec, 4.1)."""
    offsets = codebook_offsets(release.params)
    none_K0 = torch.zeros(len(offsets), 0, dtype=torch.long)
    return voice_rows(none_K0, load_table(release), offsets)[0].to(torch.bfloat16)


def judge(reading: Reading, end_D: Tensor, context: int, mismatch: str) -> Reading:
    """The reading with the traps that do not depend on the runtime: width, numbers that are not
    finite, no END row, no room for speech in `context` positions, and a number of rows that is not
    the number of places, of which `mismatch` tells the consequence."""
    traps, rows_ND = list(reading.traps), reading.rows_ND
    if rows_ND is not None:
        traps += _about_rows(rows_ND, end_D)
    rows, places = reading.rows, reading.places
    if rows is not None and places is not None and rows != places:
        traps.append(f"The prompt has {places} places for {rows} rows: {mismatch}.")
    longest = max(rows or 0, places or 0)
    if longest + AROUND_TEXT + MIN_SPEECH > context:
        traps.append(
            f"{longest} rows leave no room for text and speech in a context of {context}: use a "
            "shorter recording."
        )
    return replace(reading, traps=tuple(traps))


def _about_rows(rows_ND: Tensor, end_D: Tensor) -> list[str]:
    if rows_ND.ndim != 2 or rows_ND.shape[1] != len(end_D):
        return [
            f"It has the shape {list(rows_ND.shape)}, but the release has rows of {len(end_D)} "
            "numbers."
        ]
    if not bool(rows_ND.isfinite().all()):
        return ["It has values that are not finite."]
    if not torch.equal(rows_ND[-1].to(torch.bfloat16), end_D):
        return [
            "Its last row is not the END row, so the model takes the recording to go on: export it "
            "again, or enroll the recording again."
        ]
    return []
