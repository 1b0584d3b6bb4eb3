"""Tensors copied byte for byte from file to file, and the proof that a release with an encoder has
everything else from the release that it was made from.

The largest tensor of the real release has 805 MB: no tensor is whole in memory here.
"""

import hashlib
import os
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from io import FileIO
from pathlib import Path

from voxclone.errors import ReleaseError
from voxclone.io import Advance, atomic_file, hash_file, pieces
from voxclone.release.presets import read_preset
from voxclone.release.release import Release
from voxclone.release.safetensors import DTYPE_BYTES, FLOATS, TensorInfo, require_finite
from voxclone.release.safetensors_writer import encode_header, torch_dtype
from voxclone.release.tensors import is_encoder, require_complete
from voxclone.spec import VOICES


def digest_tensors(tensors: Mapping[str, TensorInfo], advance: Advance) -> dict[str, str]:
    """SHA-256 of each tensor's bytes, each file being opened once."""
    found = {}
    with ExitStack() as opened:
        files: dict[Path, FileIO] = {}
        for name, info in tensors.items():
            digest = hashlib.sha256()
            for piece in pieces(_opened(info.path, files, opened), info.start, info.stop):
                digest.update(piece)
                advance(len(piece))
            found[name] = digest.hexdigest()
    return found


def check_finite(tensors: Mapping[str, TensorInfo]) -> None:
    """Raise ReleaseError for the first tensor with a value that is not finite."""
    import torch

    with ExitStack() as opened:
        files: dict[Path, FileIO] = {}
        for name, info in tensors.items():
            if info.dtype not in FLOATS:
                continue
            for piece in pieces(_opened(info.path, files, opened), info.start, info.stop):
                values = torch.frombuffer(bytearray(piece), dtype=torch_dtype(info.dtype))
                require_finite(name, values, info.path)


def check_presets(release: Release) -> None:
    """Raise VoiceError for the first preset that is no plain tensor of finite numbers."""
    for path in sorted((release.path / VOICES).glob("*.pt")):
        read_preset(path, release.params.lm.dim)


def copy_tensors(
    path: Path, tensors: Mapping[str, TensorInfo], metadata: dict[str, str], advance: Advance
) -> None:
    """Write a safetensors file of tensors of other files, byte for byte."""
    ordered = sorted(tensors.items(), key=lambda item: -DTYPE_BYTES[item[1].dtype])
    described = [(name, info.dtype, info.shape) for name, info in ordered]
    with ExitStack() as opened, atomic_file(path) as file:
        files: dict[Path, FileIO] = {}
        file.write(encode_header(described, metadata))
        for _, info in ordered:
            for piece in pieces(_opened(info.path, files, opened), info.start, info.stop):
                file.write(piece)
                advance(len(piece))


def without_encoder(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """All tensors but those of a codec encoder."""
    return {name: info for name, info in tensors.items() if not is_encoder(name)}


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
    before, after = without_encoder(release.files.tensors), new.files.tensors
    if after.keys() != before.keys() | made.keys():
        raise _differs(release.path, "the list of tensors")
    moved = {
        name: old
        for name, old in before.items()
        if old.path.name != after[name].path.name or old.path.name not in carried
    }
    wanted = dict(made) | digest_tensors(moved, advance)
    found = digest_tensors({name: after[name] for name in [*made, *moved]}, advance)
    for name, info in after.items():
        old = before.get(name, info)
        same = (info.dtype, info.shape) == (old.dtype, old.shape)
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
