"""Proof that a release with an encoder is, besides that, the release it was made from."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from voxclone.errors import ReleaseError
from voxclone.release.release import Release
from voxclone.release.streams import Advance, Placed, digest_file, digest_tensors
from voxclone.release.tensors import is_encoder, require_complete


def placed_tensors(release: Release) -> dict[str, Placed]:
    """Where each tensor of a release is that is not of its encoder."""
    return {
        name: Placed(name, release.files.header_of(name).path, info)
        for name, info in release.files.tensors.items()
        if not is_encoder(name)
    }


def prove_files(
    source: Path, folder: Path, names: Collection[str], advance: Advance
) -> dict[str, str]:
    """SHA-256 of files of `source`, each found to be that of the file of this name in `folder`.

    Raises ReleaseError for one that differs.
    """
    found = {}
    for name in names:
        before, after = source / name, folder / name
        found[name] = digest_file(before, advance)
        # A hard link is that file: there is nothing else to read.
        if not os.path.samefile(before, after) and digest_file(after, advance) != found[name]:
            raise _differs(source, name)
    return found


def prove_tensors(
    release: Release,
    folder: Path,
    carried: Collection[str],
    made: Mapping[str, str],
    advance: Advance,
) -> int:
    """Open `folder` as a reader would, and compare every tensor with where it came from: the
    encoder's with `made` (SHA-256 when they were written), the others with those of `release`.

    What lies in the same `carried` file as before is proved with that file. Gives the number of
    the others. Raises ReleaseError if any differs, is missing, or was not there.
    """
    new = Release.open(folder)
    require_complete(new.report, folder)
    before = placed_tensors(release)
    after = {
        name: Placed(name, new.files.header_of(name).path, info)
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
    for name, placed in after.items():
        old_info = before[name].info if name in before else placed.info
        alike = (placed.info.dtype, placed.info.shape) == (old_info.dtype, old_info.shape)
        if not alike or found.get(name) != wanted.get(name):
            raise _differs(release.path, name)
    return len(before)


def _differs(source: Path, what: str) -> ReleaseError:
    return ReleaseError(
        f"In the copy of {source}, {what} is not what it was: the release changed meanwhile, or "
        "memory or disk are unreliable. Nothing was left; try again."
    )
