"""What a new release folder is made of: another one's files, which are never written.

Tensor files are hard links where the file system allows it and copies elsewhere, so an 8 GB release
costs no space; everything small is copied, because it may be written again.
"""

import errno
import os
import shutil
from pathlib import Path

from voxclone.errors import UsageError

NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}


def refuse_inside(out: Path, source: Path) -> None:
    """Raise UsageError if `out` is the release folder `source` or lies in it."""
    if out.resolve().is_relative_to(source.resolve()):
        raise UsageError(
            f"{out} lies in the release {source}, which is never written: name a folder outside it."
        )


def link_release(source: Path, target: Path) -> None:
    """Put the files of the release folder `source` and of its `voice_embedding` into `target`."""
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            own = target / path.name
            if path.suffix != ".safetensors" or not hard_link(path, own):
                shutil.copyfile(path, own)
    voices = target / "voice_embedding"
    voices.mkdir()
    for path in sorted((source / voices.name).glob("[!.]*")):
        if path.is_file():
            shutil.copyfile(path, voices / path.name)


def hard_link(source: Path, target: Path) -> bool:
    """Give a file a second name; False where the file systems do not allow it."""
    try:
        # A link to a symbolic link would point nowhere: files of the Hub's cache are such.
        os.link(os.path.realpath(source), target)
    except OSError as error:
        if error.errno in NO_LINKS:
            return False
        raise
    return True
