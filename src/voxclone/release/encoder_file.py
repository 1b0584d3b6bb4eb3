"""Recovered encoders: files of their own, each made for one code book.

An encoder file is safetensors with the withheld tensors under their names in the release. Its
header says for which code book it was trained, so that it is never used with another one.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxclone.errors import ReleaseError
from voxclone.release.release import Release, load_codec
from voxclone.release.safetensors import DTYPE_BYTES, TensorFiles, read_header
from voxclone.release.tensors import CODEC, encoder_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from voxclone.codec.model import Codec

FORMAT = "voxclone.encoder/1"
BLOCK = 2**20
BOOK = (
    f"{CODEC}quantizer.semantic_codebook.cluster_usage",
    f"{CODEC}quantizer.semantic_codebook.embedding_sum",
)


def book_hash(release: Release) -> str:
    """SHA-256 of the release's code book, as it is stored."""
    return stored_hash(release.files, BOOK)


def stored_hash(files: TensorFiles, names: Iterable[str]) -> str:
    """SHA-256 of the bytes of tensors, in the order of `names`; torch is not needed.

    Raises ReleaseError for a tensor that is not there.
    """
    digest = hashlib.sha256()
    for name in names:
        header = files.header_of(name)
        with header.path.open("rb") as file:
            file.seek(header.tensors[name].start)
            left = header.tensors[name].values * DTYPE_BYTES[header.tensors[name].dtype]
            while left:
                block = file.read(min(left, BLOCK))
                if not block:
                    raise ReleaseError(f"{header.path} was cut short while it was read.")
                digest.update(block)
                left -= len(block)
    return digest.hexdigest()


def save_encoder(
    path: Path, state: Mapping[str, "Tensor"], release: Release, facts: Mapping[str, Any]
) -> None:
    """Write an encoder for `release` in bf16, complete or not at all; `facts` (JSON values) go into
    the header. Raises ReleaseError for tensors that are missing or misshapen."""
    import torch
    from safetensors.torch import save_file

    shapes = encoder_tensors(release.params)
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if found != shapes:
        wrong = sorted({*found.items()} ^ {*shapes.items()})[:3]
        raise ReleaseError(f"These are not the tensors of the encoder of {release.path}: {wrong}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    header = {"format": FORMAT, "book": book_hash(release), "facts": json.dumps(dict(facts))}
    tensors = {name: state[name].to(torch.bfloat16).contiguous() for name in shapes}
    save_file(tensors, temporary, header)
    os.replace(temporary, path)


def require_same_book(path: Path, metadata: Mapping[str, str], release: Release) -> None:
    """Raise ReleaseError if the header of the encoder `path` names another code book than that of
    `release`. A header that names none passes."""
    made_for = metadata.get("book")
    if made_for is not None and made_for != book_hash(release):
        raise ReleaseError(
            f"{path} was trained for another code book than that of {release.path}: codes "
            "would mean nothing there. Train one for this release."
        )


def packaged_encoders() -> list[Path]:
    """The encoder files that come with the package."""
    return sorted((Path(__file__).parents[1] / "encoders").glob("*.safetensors"))


def packaged_encoder(release: Release) -> Path | None:
    """The encoder of the package that was made for the code book of `release`, if there is one."""
    packaged = packaged_encoders()
    if packaged:
        wanted = book_hash(release)
        for path in packaged:
            if read_header(path).metadata.get("book") == wanted:
                return path
    return None


def find_encoder(release: Release, encoder: Path | None = None) -> Path | None:
    """The file of the best encoder there is for a release: `encoder` if given, else the release's
    own (None), else a packaged one that was made for this code book.

    Raises ReleaseError if there is none, with the ways to get one, or if `encoder` was made for
    another code book.
    """
    if encoder is not None:
        require_same_book(encoder, read_header(encoder).metadata, release)
        return encoder
    if release.report.encoder != "withheld":
        return None
    packaged = packaged_encoder(release)
    if packaged is not None:
        return packaged
    raise ReleaseError(
        f"The release {release.path} has no codec encoder, so it cannot turn a recording into a "
        "voice. Train one (`voxclone train encoder`), name the file of one that somebody trained "
        "for it (`--encoder FILE`), or speak with one of its presets (`voxclone speak`)."
    )


def open_codec(release: Release, encoder: Path | None = None) -> "Codec":
    """The codec of a release with the encoder that `find_encoder` finds. Raises ReleaseError."""
    return load_codec(release, find_encoder(release, encoder))
