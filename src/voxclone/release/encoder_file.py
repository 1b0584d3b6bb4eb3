"""Encoder files: the withheld tensors of a release, recovered for its codebook.

An encoder file is safetensors with the tensors under their names in the release. Its header has the
hash of the codebook that it was trained for, so that it is never used with another one.

Encoders of unknown origin are opened and checked, too: see `encoder_layouts`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from voxclone.errors import ConfigError, ReleaseError
from voxclone.io import pieces
from voxclone.readers import parse_json
from voxclone.records import Record, parse_record
from voxclone.release.encoder_layouts import read_encoder_tensors
from voxclone.release.release import Release, load_codec
from voxclone.release.safetensors import Header, TensorFiles, read_header, require_finite
from voxclone.release.safetensors_writer import Entry, write_safetensors
from voxclone.release.tensors import Shapes, encoder_tensors
from voxclone.spec import CODEC

if TYPE_CHECKING:
    from torch import Tensor

    from voxclone.codec.model import Codec

Validator = Callable[[Path], Sequence[str]]
"""Gives a sentence for each check that an encoder file failed, or raises to refuse it."""

FORMAT = "voxclone.encoder/2"
FORMAT_1 = "voxclone.encoder/1"
CODEBOOK_TENSORS = (
    f"{CODEC}quantizer.semantic_codebook.cluster_usage",
    f"{CODEC}quantizer.semantic_codebook.embedding_sum",
)


def codebook_hash(release: Release) -> str:
    """SHA-256 of the release's codebook, as it is stored."""
    return stored_hash(release.files, CODEBOOK_TENSORS)


def stored_hash(files: TensorFiles, names: Iterable[str]) -> str:
    """SHA-256 of the bytes of tensors, in the order of `names`; torch is not needed.

    Raises ReleaseError for a tensor that is not there.
    """
    digest = hashlib.sha256()
    for name in names:
        info = files.header_of(name).tensors[name]
        with info.path.open("rb", buffering=0) as file:
            for piece in pieces(file, info.start, info.stop):
                digest.update(piece)
    return digest.hexdigest()


def save_encoder(
    path: Path, state: Mapping[str, "Tensor"], release: Release, training: Mapping[str, Any]
) -> None:
    """Write an encoder for `release` in bf16, whole or not at all. `training` (JSON values) goes
    into the header: `config`, `step` and `metrics`. Raises ReleaseError for tensors that are
    missing, misshapen or not finite."""
    shapes = encoder_tensors(release.params)
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if found != shapes:
        wrong = sorted({*found.items()} ^ {*shapes.items()})[:3]
        raise ReleaseError(f"These are not the tensors of the encoder of {release.path}: {wrong}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = encoder_metadata(codebook_hash(release), training)
    encoder = ExternalEncoder(path, shapes, metadata, state.__getitem__, has_provenance=True)
    write_encoder(path, encoder, metadata)


def encoder_metadata(codebook: str, training: Mapping[str, Any]) -> dict[str, str]:
    """The metadata in the header of an encoder file."""
    return {"format": FORMAT, "codebook_sha256": codebook, "training": json.dumps(dict(training))}


def read_encoder_metadata(header: Header) -> dict[str, str]:
    """The metadata in a header, migrated from format 1."""
    metadata = header.metadata
    if metadata.get("format") != FORMAT_1:
        return metadata
    label = f"The metadata of {header.path}"
    training = parse_json(metadata.get("facts", ""), label, ReleaseError)
    if not isinstance(training, dict) or "book" not in metadata:
        raise ReleaseError(f"{label} are damaged: fetch the file again.")
    training["metrics"] = training.pop("figures", {})
    return encoder_metadata(metadata["book"], training)


def require_same_codebook(path: Path, metadata: Mapping[str, str], release: Release) -> None:
    """Raise ReleaseError if the metadata of the encoder `path` name another codebook than that of
    `release`. Metadata that name none pass."""
    made_for = metadata.get("codebook_sha256")
    if made_for is not None and made_for != codebook_hash(release):
        raise ReleaseError(
            f"{path} was trained for another codebook than that of {release.path}: codes "
            "would mean nothing there. Train one for this release."
        )


def packaged_encoders() -> list[Path]:
    """The encoder files that come with the package."""
    return sorted((Path(__file__).parents[1] / "encoders").glob("*.safetensors"))


def packaged_encoder(release: Release) -> Path | None:
    """The encoder of the package that was made for the codebook of `release`, if there is one."""
    packaged = packaged_encoders()
    if packaged:
        wanted = codebook_hash(release)
        for path in packaged:
            if read_encoder_metadata(read_header(path)).get("codebook_sha256") == wanted:
                return path
    return None


def find_encoder(release: Release, encoder: Path | None = None) -> Path | None:
    """The encoder file for a release: `encoder` if given; else None if the release has its own
    encoder; else a packaged one that was made for its codebook.

    Raises ReleaseError if there is none, with the ways to get one, or if `encoder` was made for
    another codebook.
    """
    if encoder is not None:
        header = read_encoder_tensors(encoder, release.params).header
        if header is not None:
            require_same_codebook(encoder, read_encoder_metadata(header), release)
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
class ExternalEncoder:
    """A complete, well-shaped encoder for one release. `load` gives a tensor by its name in the
    release. `has_provenance` if the file names the release's codebook as that of its training; any
    other encoder must be examined before it is used."""

    path: Path
    shapes: Shapes
    metadata: dict[str, str]
    load: "Callable[[str], Tensor]"
    has_provenance: bool
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of all tensors in bf16."""
        return 2 * sum(prod(shape) for shape in self.shapes.values())


def open_external_encoder(path: Path, release: Release) -> ExternalEncoder:
    """Open an encoder of any layout for `release`; only its header is read, nothing is unpickled.

    Raises ReleaseError if it is not all of the encoder's tensors and nothing else, or was trained
    for another codebook.
    """
    shapes = encoder_tensors(release.params)
    found = read_encoder_tensors(path, release.params)
    metadata: dict[str, str] = {}
    if found.header is not None:
        metadata = read_encoder_metadata(found.header)
        require_same_codebook(path, metadata, release)
    has_provenance = metadata.get("format") == FORMAT and "codebook_sha256" in metadata
    if not has_provenance:
        metadata = {"origin": path.name}
    return ExternalEncoder(path, shapes, metadata, found.load, has_provenance, found.notes)


def write_encoder(path: Path, encoder: ExternalEncoder, metadata: dict[str, str]) -> dict[str, str]:
    """Write an encoder in bf16 under the names of the release, one tensor in memory at a time.

    Gives the SHA-256 of each tensor's bytes. Raises ReleaseError for values that are not finite.
    """
    import torch

    digests: dict[str, str] = {}

    def make(name: str) -> "Tensor":
        tensor = encoder.load(name).detach().cpu().to(torch.bfloat16).contiguous()
        require_finite(name, tensor, encoder.path)
        data = tensor.flatten().view(torch.uint8).numpy().data
        digests[name] = hashlib.sha256(data).hexdigest()
        return tensor

    write_safetensors(
        path,
        [
            Entry(name, torch.bfloat16, shape, partial(make, name))
            for name, shape in encoder.shapes.items()
        ],
        metadata,
    )
    return digests


def write_validated(
    path: Path, encoder: ExternalEncoder, metadata: dict[str, str], validate: Validator
) -> tuple[dict[str, str], Sequence[str]]:
    """Write an encoder and validate the file. Failed checks go into its header. Gives the SHA-256
    of its tensors, and the failed checks."""
    digests = write_encoder(path, encoder, metadata)
    failed = validate(path)
    if failed:
        write_encoder(path, encoder, metadata | {"failed_checks": json.dumps(list(failed))})
    return digests, failed


def training_metrics(encoder: ExternalEncoder) -> dict[str, float]:
    """The metrics that the training wrote into the header of an encoder with provenance, if it
    did."""
    text, label = encoder.metadata.get("training", "{}"), f"the metadata of {encoder.path}"
    try:
        return parse_record(_Training, parse_json(text, label), label).metrics
    except ConfigError:
        return {}


class _Training(Record):
    metrics: dict[str, float] = Field(default_factory=dict)
