"""Recovered encoders: files of their own, each made for one code book.

An encoder file is safetensors with the withheld tensors under their names in the release. Its
header says for which code book it was trained, so that it is never used with another one.

What somebody else made is opened and checked too: safetensors with or without `audio_tokenizer.`
before the names, and the community's `best_encoder.pt`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxclone.errors import ReleaseError
from voxclone.io import atomic_path
from voxclone.release.release import Release, encoder_prefix, load_codec
from voxclone.release.safetensors import (
    DTYPE_BYTES,
    Entry,
    TensorFiles,
    read_header,
    write_safetensors,
)
from voxclone.release.tensors import Shapes, encoder_tensors
from voxclone.release.torch_checkpoint import is_torch_file, read_checkpoint
from voxclone.spec import CODEC

if TYPE_CHECKING:
    from torch import Tensor

    from voxclone.codec.model import Codec

Judge = Callable[[Path], Sequence[str]]

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
    header = {"format": FORMAT, "book": book_hash(release), "facts": json.dumps(dict(facts))}
    tensors = {name: state[name].to(torch.bfloat16).contiguous() for name in shapes}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, header)


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


@dataclass(frozen=True)
class Brought:
    """A complete, well-shaped encoder for one release. `load` gives a tensor by its name in the
    release. `vouched` is whether the file says that it was trained for this release's code book;
    what anybody else made must be examined before it is used."""

    path: Path
    shapes: Shapes
    metadata: dict[str, str]
    load: "Callable[[str], Tensor]"
    vouched: bool

    @property
    def bytes(self) -> int:
        """Size of all tensors in bf16."""
        return 2 * sum(prod(shape) for shape in self.shapes.values())


def open_brought(path: Path, release: Release) -> Brought:
    """Open an encoder of any layout for `release`; only its header is read, nothing is unpickled.

    Raises ReleaseError if it is not all of the encoder's tensors and nothing else, or was trained
    for another code book.
    """
    shapes = encoder_tensors(release.params)
    if is_torch_file(path):
        checkpoint = read_checkpoint(path)
        missing = encoder_prefix(release.params, checkpoint.tensors, path)
        load = partial(_load, checkpoint.load, missing)
        return Brought(path, shapes, {"origin": path.name}, load, vouched=False)
    header = read_header(path)
    missing = encoder_prefix(release.params, header.tensors, path)
    require_same_book(path, header.metadata, release)
    load = partial(_load, TensorFiles([header]).load, missing)
    vouched = header.metadata.get("format") == FORMAT and "book" in header.metadata
    metadata = header.metadata if vouched else {"origin": path.name}
    return Brought(path, shapes, metadata, load, vouched)


def write_brought(path: Path, brought: Brought, metadata: dict[str, str]) -> dict[str, str]:
    """Write an encoder in bf16 under the names of the release, one tensor in memory at a time.

    Gives the SHA-256 of each tensor's bytes. Raises ReleaseError for values that are not finite.
    """
    import torch

    digests: dict[str, str] = {}

    def make(name: str) -> "Tensor":
        tensor = brought.load(name).to(torch.bfloat16).contiguous()
        if not tensor.isfinite().all():
            raise ReleaseError(
                f"In {brought.path}, {name} has values that are not finite: the training that "
                "made it had failed; take an earlier checkpoint."
            )
        data = tensor.flatten().view(torch.uint8).numpy().data
        digests[name] = hashlib.sha256(data).hexdigest()
        return tensor

    write_safetensors(
        path,
        [
            Entry(name, torch.bfloat16, shape, partial(make, name))
            for name, shape in brought.shapes.items()
        ],
        metadata,
    )
    return digests


def write_judged(
    path: Path, encoder: Brought, metadata: dict[str, str], judge: Judge
) -> tuple[dict[str, str], Sequence[str]]:
    """Write an encoder and have it judged; gives the SHA-256 of its tensors and the remarks."""
    digests = write_brought(path, encoder, metadata)
    remarks = judge(path)
    if remarks:
        write_brought(path, encoder, metadata | {"findings": json.dumps(list(remarks))})
    return digests, remarks


def training_figures(brought: Brought) -> dict[str, float]:
    """Figures that the trainer of a `vouched` encoder wrote into its header, if it did."""
    try:
        figures = json.loads(brought.metadata.get("facts", "{}")).get("figures", {})
        return {str(name): float(value) for name, value in figures.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _load(load: "Callable[[str], Tensor]", missing: str, name: str) -> "Tensor":
    return load(name.removeprefix(missing))
