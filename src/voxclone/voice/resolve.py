"""A voice for one release: from a voice file, or a preset.

Shapes: N rows, D width.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from voxclone.release.release import Release, load_preset
from voxclone.voice.embedding import rows_for
from voxclone.voice.file import SUFFIX, Voice, load_voice


@dataclass(frozen=True)
class Chosen:
    """Rows [N, D] in bf16 for one release, and the voice file's content unless it is a preset;
    `made_anew` if the rows are not those of the file but embedded again from its codes."""

    name: str
    rows_ND: Tensor
    voice: Voice | None
    made_anew: bool = False


def chosen_preset(name: str, release: Release) -> Chosen:
    """A preset of the release. Raises VoiceError."""
    return Chosen(name, load_preset(release, name), None)


def chosen_file(path: Path, release: Release) -> Chosen:
    """The voice of a file. Raises VoiceError for one that cannot be read, or was made for another
    code book than that of `release`."""
    loaded = load_voice(path)
    found = rows_for(loaded, release, path)
    name = loaded.facts.name or path.name.removesuffix(SUFFIX)
    return Chosen(name, found.rows_ND, loaded, found.made_anew)
