"""An encoder that somebody brings: opened and checked in any of the layouts in which they exist.

- safetensors of `voxclone train encoder`, whose header names the code book that it was made for;
- safetensors of somebody else, with or without `audio_tokenizer.` before the names;
- the community's `best_encoder.pt`.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from voxclone.errors import ReleaseError
from voxclone.release.encoder_file import FORMAT, require_same_book
from voxclone.release.release import Release, encoder_prefix
from voxclone.release.safetensors import Entry, TensorFiles, read_header, write_safetensors
from voxclone.release.tensors import Shapes, encoder_tensors
from voxclone.release.torch_checkpoint import is_torch_file, read_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

Judge = Callable[[Path], Sequence[str]]


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
