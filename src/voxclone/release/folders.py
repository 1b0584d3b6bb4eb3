"""A new release folder made from another one: all of it or nothing, the source never written.

Tensor files are hard links where the file system allows it and copies elsewhere, so an 8 GB release
costs no space; everything small is copied, because it may be written again.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voxclone.errors import UsageError


@contextmanager
def new_folder(out: Path, source: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes `out` if the block ends well and is removed otherwise.

    Raises UsageError if `out` exists, cannot be made, or lies in `source`.
    """
    refuse_inside(out, source)
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} exists: name a new folder, or remove it first.")
    if not out.parent.is_dir():
        raise UsageError(f"{out} cannot be made: there is no directory {out.parent}.")
    temporary = out.parent / f".{out.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    try:
        temporary.mkdir()
        yield temporary
        os.rename(temporary, out)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_inside(out: Path, source: Path) -> None:
    """Raise UsageError if `out` is the release folder `source` or lies in it."""
    if out.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{out} is in the release {source}, which is never written: go elsewhere.")


def link_release(source: Path, target: Path) -> None:
    """Put the files of the release folder `source` and of its `voice_embedding` into `target`."""
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            link_or_copy(path, target / path.name)
    voices = target / "voice_embedding"
    voices.mkdir()
    for path in sorted((source / voices.name).glob("[!.]*")):
        if path.is_file():
            shutil.copyfile(path, voices / path.name)


def link_or_copy(source: Path, target: Path) -> None:
    """`target` as a hard link to a tensor file, or as a copy of anything else."""
    if source.suffix == ".safetensors":
        try:
            os.link(source.resolve(), target)  # Hub caches hold symbolic links
            return
        except OSError:  # another file system, or one without hard links
            pass
    shutil.copyfile(source, target)
