"""The voice that a user names: a voice file, or a preset of the release.

Shapes: N rows, D width.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from voxclone.errors import UsageError
from voxclone.release.archive import Release, load_preset, load_table
from voxclone.voice.file import SUFFIX, Voice, load_voice, tensor_hash


@dataclass(frozen=True)
class Chosen:
    """Rows [N, D] in bf16 for one release, and the voice file's content unless it is a preset."""

    name: str
    rows_ND: Tensor
    voice: Voice | None


def choose_voice(voice: str, release: Release) -> Chosen:
    """A voice file or a preset. Raises VoiceError for one that cannot be read, and UsageError for a
    file that was made with another embedding table than that of `release`."""
    if not voice.endswith(".safetensors") and not Path(voice).exists():
        return Chosen(voice, load_preset(release, voice), None)
    loaded = load_voice(Path(voice))
    if loaded.facts.table_hash != tensor_hash(load_table(release)):
        raise UsageError(
            f"{voice} was made with another embedding table than that of {release.path}: enroll "
            "the recording again."
        )
    return Chosen(
        loaded.facts.name or Path(voice).name.removesuffix(SUFFIX), loaded.rows_ND, loaded
    )
