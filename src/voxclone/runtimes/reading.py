"""The result of reading a voice as a runtime does, and the checks that all runtimes share.

Shapes: N frames, D width.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from voxclone.runtimes.containers import Found
from voxclone.spec import AROUND_TEXT

MIN_SPEECH = 25  # frames: below 2 s there is no room for a sentence


@dataclass(frozen=True)
class Reading:
    """The voice `name` as a runtime loads it.

    `frames` of it would go into the prompt, None if the voice is not used at all, and `positions`
    in the prompt are made for them. `embedding_ND` is the embedding itself, where the file holds
    it. A problem is a sentence on why the runtime would not speak as intended; a note is not.
    """

    name: str
    source: str
    frames: int | None = None
    positions: int | None = None
    embedding_ND: Tensor | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether the runtime would speak with the voice as intended."""
        return self.frames is not None and not self.problems


def reading_of(name: str, path: Path, found: Found, positions: int | None) -> Reading:
    """The reading of a runtime that puts what was found into `positions`."""
    embedding_ND, problems = found
    frames = None if embedding_ND is None else len(embedding_ND)
    return Reading(name, str(path), frames, positions, embedding_ND, tuple(problems))


def self_counted(name: str, path: Path, found: Found) -> Reading:
    """The reading of a runtime that makes as many positions as the file has frames."""
    return reading_of(name, path, found, None if found[0] is None else len(found[0]))


def check_reading(reading: Reading, end_D: Tensor, context: int, mismatch: str) -> Reading:
    """The reading with the problems that all runtimes share: another width, numbers that are not
    finite, no END frame, no room for speech in `context` positions, and a number of frames that is
    not the number of positions. `mismatch` is the consequence of the last one."""
    problems = list(reading.problems)
    if reading.embedding_ND is not None:
        problems += _embedding_problems(reading.embedding_ND, end_D)
    frames, positions = reading.frames, reading.positions
    if frames is not None and positions is not None and frames != positions:
        problems.append(f"The prompt has {positions} positions for {frames} frames: {mismatch}.")
    longest = max(frames or 0, positions or 0)
    if longest + AROUND_TEXT + MIN_SPEECH > context:
        problems.append(
            f"{longest} frames leave no room for text and speech in a context of {context}: use a "
            "shorter recording."
        )
    return replace(reading, problems=tuple(problems))


def _embedding_problems(embedding_ND: Tensor, end_D: Tensor) -> list[str]:
    if embedding_ND.ndim != 2 or embedding_ND.shape[1] != len(end_D):
        return [
            f"It has the shape {list(embedding_ND.shape)}, but the release has frames of "
            f"{len(end_D)} numbers."
        ]
    if not bool(embedding_ND.isfinite().all()):
        return ["It has values that are not finite."]
    if not torch.equal(embedding_ND[-1].to(torch.bfloat16), end_D):
        return [
            "Its last frame is not the END frame, so the model expects more of the recording: "
            "export it again, or enroll the recording again."
        ]
    return []
