"""The voice file: codes, voice embedding and metadata in one safetensors file.

`codes` [K, T] (int16) can be embedded by any release with the same codebooks. `embedding`
[T + 1, D] (bf16) is for the language model of one release; its key is the one that mlx-audio and
mlx-voxtral-swift look for. The metadata are JSON in the header (`voice.metadata`), and are read and
changed without torch, so that listing voices is quick.

Shapes: K codebooks, T frames, N = T + 1 frames of the embedding, D width.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from voxclone.errors import (
    ReleaseError,
    StorageError,
    VoiceError,
    VoiceExistsError,
    os_errors,
    reason,
    shorten,
)
from voxclone.io import atomic_file
from voxclone.readers import open_file, read_bytes, require_local
from voxclone.release.safetensors import Header, load_tensors, read_header
from voxclone.release.safetensors_writer import encode_header
from voxclone.voice.metadata import VoiceMetadata, parse_metadata

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".voice.safetensors"
MAX_BYTES = 16 * 2**20
MAX_HEADER = 64 * 2**10
MAX_FRAMES = 4096
MAX_WIDTH = 16384
MAX_CODEBOOKS = 256
MAX_CODE = 2**15 - 1
FOREIGN = (b"PK\x03\x04", b"\x80\x02\x8a\x0a", b"GGUF")
"""Begins of files of `torch.save`, now and before PyTorch 1.6, and of loom.cpp."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Voice:
    """Codes [K, T] without the shift, the embedding [T + 1, D] in bf16, and the metadata."""

    codes_KT: "Tensor"
    embedding_ND: "Tensor"
    metadata: VoiceMetadata

    @classmethod
    def load(cls, path: Path | str) -> "Voice":
        """Read a voice file. Everything is checked before data is read, but for whether the codes
        are of a release: see `voice.resolve`. Raises VoiceError for anything else than a voice."""
        path = Path(path)
        _, metadata = _checked(path)
        tensors = load_tensors(path, VoiceError)
        if int(tensors["codes"].min()) < 0:
            raise VoiceError(f"The codes of {path} are negative: the file is damaged.")
        return cls(tensors["codes"].long(), tensors["embedding"], metadata)

    def save(self, path: Path | str, *, new: bool = False) -> None:
        """Write a voice file, whole or not at all; `new`: only if there is no such file.

        Raises VoiceError if it cannot be written, could not be read again, or nobody's consent is
        stated, and VoiceExistsError for a file that should be new and is not.
        """
        import torch

        path, codes_KT, embedding_ND = Path(path), self.codes_KT, self.embedding_ND
        if codes_KT.numel() and not 0 <= int(codes_KT.min()) <= int(codes_KT.max()) <= MAX_CODE:
            raise VoiceError(
                f"The voice cannot be written to {path}: its codes are not all within 0 to "
                f"{MAX_CODE}."
            )
        parts = (codes_KT.to(torch.int16), embedding_ND.to(torch.bfloat16))
        data = b"".join(
            part.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() for part in parts
        )
        _write(path, self.metadata, tuple(codes_KT.shape), tuple(embedding_ND.shape), data, new)


def copy_voice(source: Path, path: Path, metadata: VoiceMetadata, *, new: bool = False) -> None:
    """Write the codes and the embedding of a voice file with other metadata. Raises VoiceError as
    `Voice.save` does."""
    header, _ = _checked(source)
    codes, embedding = header.tensors["codes"], header.tensors["embedding"]
    content = read_bytes(source, StorageError)
    data = content[codes.start : codes.stop] + content[embedding.start : embedding.stop]
    _write(path, metadata, codes.shape, embedding.shape, data, new)


def read_metadata(path: Path) -> VoiceMetadata:
    """The metadata of a voice file; only its header is read. Raises VoiceError for anything that is
    no voice file."""
    return _checked(path)[1]


def _checked(path: Path) -> tuple[Header, VoiceMetadata]:
    """Header and metadata of a file whose every byte is accounted for."""
    require_local(path, VoiceError)
    if not os.path.exists(path):
        raise VoiceError(f"There is no voice file at {shorten(path)}.")
    with open_file(path, StorageError) as file, os_errors(f"{path} cannot be read", StorageError):
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise VoiceError(f"{path} has {size} bytes: too large for a voice file.")
        begin = file.read(8)
        if begin.startswith(FOREIGN):
            raise _foreign(path)
        if int.from_bytes(begin, "little") > MAX_HEADER:
            raise VoiceError(
                f"{path} is no voice file: its header is longer than {MAX_HEADER} bytes."
            )
    try:
        header = read_header(path)
    except ReleaseError as error:
        raise VoiceError(f"{path} is no voice file: {shorten(error)}") from None
    shapes = {name: (entry.dtype, entry.shape) for name, entry in header.tensors.items()}
    if shapes.keys() == {"embedding"}:
        raise _foreign(path)
    if shapes.keys() != {"codes", "embedding"}:
        raise VoiceError(f"{path} is no voice file: it holds {shorten(sorted(shapes)[:8])}.")
    (codes_dtype, codes), (dtype, embedding) = shapes["codes"], shapes["embedding"]
    if codes_dtype != "I16" or dtype != "BF16" or len(codes) != 2 or len(embedding) != 2:
        raise VoiceError(f"{path} is no voice file: {shorten(shapes)}.")
    _check_shapes(path, codes, embedding)
    text = header.metadata.get("voxclone")
    if text is None:
        raise VoiceError(f"{path} has no metadata of voxclone: another program made it.")
    return header, parse_metadata(text, path)


def _foreign(path: Path) -> VoiceError:
    return VoiceError(
        f"{path} is a voice of another program: make one of voxclone of it by `voxclone voices "
        f"import {shorten(path)} --name NAME --consent KIND --statement TEXT`."
    )


def _check_shapes(path: Path, codes: Shape, embedding: Shape) -> None:
    if embedding[0] != codes[1] + 1 or not 2 <= embedding[0] <= MAX_FRAMES:
        raise VoiceError(
            f"{path} has {codes[1]} frames of codes and {embedding[0]} of the embedding: one more "
            f"is needed, and {MAX_FRAMES} at most."
        )
    if not 1 <= codes[0] <= MAX_CODEBOOKS or not 1 <= embedding[1] <= MAX_WIDTH:
        raise VoiceError(f"{path} has {codes[0]} codebooks and a width of {embedding[1]}.")


def _write(
    path: Path, metadata: VoiceMetadata, codes: Shape, embedding: Shape, data: bytes, new: bool
) -> None:
    if metadata.consent.kind == "unstated":
        raise VoiceError(
            f"The voice is not written to {path}: nobody's consent is stated. State it: self, "
            "written, public-domain or synthetic."
        )
    _check_shapes(path, codes, embedding)
    tensors = [("codes", "I16", codes), ("embedding", "BF16", embedding)]
    header = encode_header(tensors, {"voxclone": metadata.model_dump_json(exclude_none=True)})
    if len(header) > MAX_HEADER or len(header) + len(data) > MAX_BYTES:
        raise VoiceError(
            f"The voice is not written to {path}: its metadata have {len(header)} bytes (at most "
            f"{MAX_HEADER}), its numbers {len(data)} (at most {MAX_BYTES})."
        )
    try:
        with atomic_file(path, new=new) as file:
            file.write(header + data)
    except FileExistsError:
        raise VoiceExistsError(
            f"There is a voice at {path} already: choose another name, or remove it."
        ) from None
    except OSError as error:
        raise StorageError(f"The voice cannot be written to {path}: {reason(error)}.") from None
