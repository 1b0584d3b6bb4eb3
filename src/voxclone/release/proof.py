"""Tensors copied byte for byte from file to file, and the proof that a release with an encoder has
everything else from the release that it was made from.

The largest tensor of the real release has 805 MB: no tensor is whole in memory here.
"""

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from voxclone.errors import ReleaseError
from voxclone.io import Advance, atomic_file, hash_file, pieces
from voxclone.release.release import Release
from voxclone.release.safetensors import DTYPE_BYTES, TensorInfo, encode_header
from voxclone.release.tensors import is_encoder, require_complete


@dataclass(frozen=True)
class StoredTensor:
    """A tensor and the file that it is in."""

    name: str
    path: Path
    info: TensorInfo

    @property
    def span(self) -> tuple[int, int]:
        """Its bytes in the file."""
        return self.info.start, self.info.stop


def digest_tensors(tensors: Iterable[StoredTensor], advance: Advance) -> dict[str, str]:
    """SHA-256 of each tensor's bytes, each file being opened once."""
    found = {}
    with ExitStack() as opened:
        files: dict[Path, FileIO] = {}
        for each in tensors:
            digest = hashlib.sha256()
            for piece in pieces(_opened(each.path, files, opened), *each.span):
                digest.update(piece)
                advance(len(piece))
            found[each.name] = digest.hexdigest()
    return found


def copy_tensors(
    path: Path, tensors: Sequence[StoredTensor], metadata: dict[str, str], advance: Advance
) -> None:
    """Write a safetensors file of tensors of other files, byte for byte."""
    ordered = sorted(tensors, key=lambda each: -DTYPE_BYTES[each.info.dtype])
    described = [(each.name, each.info.dtype, each.info.shape) for each in ordered]
    with ExitStack() as opened, atomic_file(path) as file:
        files: dict[Path, FileIO] = {}
        file.write(encode_header(described, metadata))
        for each in ordered:
            for piece in pieces(_opened(each.path, files, opened), *each.span):
                file.write(piece)
                advance(len(piece))


def stored_tensors(release: Release) -> dict[str, StoredTensor]:
    """The tensors of a release without those of its encoder, and their files."""
    return {
        name: StoredTensor(name, release.files.header_of(name).path, info)
        for name, info in release.files.tensors.items()
        if not is_encoder(name)
    }


def prove_files(
    source: Path, folder: Path, names: Collection[str], advance: Advance
) -> dict[str, str]:
    """SHA-256 of files of `source`, compared with the files of the same names in `folder`.

    Raises ReleaseError for a file that differs.
    """
    found = {}
    for name in names:
        before, after = source / name, folder / name
        found[name] = hash_file(before, advance)
        # A hard link is that file: there is nothing else to read.
        if not os.path.samefile(before, after) and hash_file(after, advance) != found[name]:
            raise _differs(source, name)
    return found


def prove_tensors(
    release: Release,
    folder: Path,
    carried: Collection[str],
    made: Mapping[str, str],
    advance: Advance,
) -> int:
    """Open `folder` as a reader would, and compare every tensor with its origin: those of the
    encoder with `made` (SHA-256 when they were written), the others with those of `release`.

    A tensor in the same `carried` file as before is proved with that file. Gives the number of
    tensors of the release. Raises ReleaseError if a tensor differs, is missing, or is new.
    """
    new = Release.open(folder)
    require_complete(new.report, folder)
    before = stored_tensors(release)
    after = {
        name: StoredTensor(name, new.files.header_of(name).path, info)
        for name, info in new.files.tensors.items()
    }
    if after.keys() != before.keys() | made.keys():
        raise _differs(release.path, "the list of tensors")
    moved = [
        name
        for name, old in before.items()
        if old.path.name != after[name].path.name or old.path.name not in carried
    ]
    wanted = dict(made) | digest_tensors([before[name] for name in moved], advance)
    found = digest_tensors([after[name] for name in [*made, *moved]], advance)
    for name, stored in after.items():
        old_info = before[name].info if name in before else stored.info
        same = (stored.info.dtype, stored.info.shape) == (old_info.dtype, old_info.shape)
        if not same or found.get(name) != wanted.get(name):
            raise _differs(release.path, name)
    return len(before)


def _differs(source: Path, what: str) -> ReleaseError:
    return ReleaseError(
        f"In the copy of {source}, {what} is not what it was: the release changed meanwhile, or "
        "memory or disk are unreliable. Nothing was left; try again."
    )


def _opened(path: Path, files: dict[Path, FileIO], stack: ExitStack) -> FileIO:
    if path not in files:
        files[path] = stack.enter_context(path.open("rb", buffering=0))
    return files[path]
