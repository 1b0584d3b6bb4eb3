"""The identity of an enrollment: the same recordings, options, encoder and release give the same
voice, so it is made once and then found. Torch is not needed."""

import hashlib
import importlib.metadata
import stat
from collections.abc import Sequence
from pathlib import Path

from voxclone.audio.files import DEFAULT_LIMITS
from voxclone.cloning.options import EnrollOptions
from voxclone.io import hash_file
from voxclone.release.encoder_file import CODEBOOK_TENSORS, stored_hash
from voxclone.release.release import Release
from voxclone.release.safetensors import TensorFiles, read_header
from voxclone.release.tensors import is_encoder
from voxclone.release.torch_checkpoint import is_torch_file
from voxclone.spec import TABLE
from voxclone.voice.metadata import FORMAT


def enrollment_id(
    recordings: Sequence[str],
    release: Release,
    encoder: Path | None,
    options: EnrollOptions,
    adapter_hash: str | None = None,
) -> str:
    """SHA-256 over the contents (not the names) of everything that an enrollment depends on.

    `recordings` are the SHA-256 of their files, in order; `encoder` is a file, or None for the
    release's own. Raises ReleaseError for tensors that are missing.
    """
    if encoder is None:
        own = [name for name in release.files.tensors if is_encoder(name)]
        encoder_hash = stored_hash(release.files, sorted(own))
    else:
        encoder_hash = _encoder_file_hash(encoder)
    parts = [
        FORMAT,
        importlib.metadata.version("voxclone"),
        *recordings,
        encoder_hash,
        stored_hash(release.files, [*CODEBOOK_TENSORS, TABLE]),
        repr(release.params),
        options.model_dump_json(),
    ]
    if adapter_hash is not None:
        parts.append(adapter_hash)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _encoder_file_hash(encoder: Path) -> str:
    """SHA-256 of the tensors of a safetensors file, or of a whole file of torch.save."""
    if is_torch_file(encoder):
        return hash_file(encoder)
    files = TensorFiles([read_header(encoder)])
    return stored_hash(files, sorted(files.tensors))


def file_hash(path: Path) -> str | None:
    """SHA-256 of a recording's file, as `read_recording` gives it; None for a path that it would
    refuse or wait for."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode) or not 0 < info.st_size <= DEFAULT_LIMITS.max_bytes:
            return None
        return hash_file(path)
    except OSError:
        return None
