"""Voices that other programs keep, made into voices of voxclone: their embeddings become codes.

Shapes: N frames of an embedding, T frames of codes, D width, K codebooks.
"""

import importlib.metadata
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from voxclone.errors import VoiceError
from voxclone.io import hash_file, tensor_hash
from voxclone.readers import read_head
from voxclone.release.encoder_file import codebook_hash
from voxclone.release.release import Release, load_table
from voxclone.release.tensors import codebook_offsets, codebook_sizes
from voxclone.release.torch_checkpoint import is_torch_file, refuse_old_format
from voxclone.runtimes.containers import Found, read_embedding, read_torch
from voxclone.runtimes.loom import read_gguf_voice
from voxclone.voice.embedding import embed_codes
from voxclone.voice.file import Voice
from voxclone.voice.metadata import Consent, VoiceMetadata
from voxclone.voice.presets import Inversion, invert_embedding

MIN_EXACT = 0.5  # with fewer exact frames, the embedding is of another model
ROUNDS = 4  # of the search: all frames of a true embedding are found in two


@dataclass(frozen=True)
class ImportedVoice:
    """A voice, and sentences on what is not as it was in the file."""

    voice: Voice
    notes: tuple[str, ...]


def import_voice(path: Path, release: Release, name: str, consent: Consent) -> ImportedVoice:
    """The voice in a safetensors file with one `embedding` (mlx-audio, mlx-voxtral-swift), a preset
    (`.pt`), or a GGUF file of loom.cpp, whose frames are sums of rows of the release's table.

    A frame that no codes give exactly gets the nearest codes, and a sentence. Raises VoiceError for
    a file of another kind, and for an embedding of another model.
    """
    (voice_ND, problems), license = _read(path, release)
    if voice_ND is None or problems:
        raise VoiceError(" ".join(problems))
    width = release.params.lm.dim
    if voice_ND.shape[1] != width:
        raise VoiceError(
            f"{path} has a width of {voice_ND.shape[1]}, and {release.path} one of {width}: the "
            "voice was made for another model."
        )
    if not bool(voice_ND.isfinite().all()):
        raise VoiceError(f"{path} has values that are not finite.")
    table_VD, offsets = load_table(release), codebook_offsets(release.params)
    found = invert_embedding(
        voice_ND.to(table_VD.dtype),
        table_VD,
        offsets,
        codebook_sizes(release.params),
        rounds=ROUNDS,
    )
    frames, exact = len(found.exact_T), int(found.exact_T.sum())
    if not frames or exact < MIN_EXACT * frames:
        raise VoiceError(
            f"{path} is no voice of {release.path}: {exact} of its {frames} frames are sums of its "
            "table's rows. Name the release that it was made for with --model."
        )
    metadata = VoiceMetadata(
        name=name,
        consent=consent,
        encoder_hash="unknown",
        table_hash=tensor_hash(table_VD),
        codebook_hash=codebook_hash(release),
        reference_seconds=frames / release.params.codec.frame_rate,
        reference_hash=hash_file(path),
        tool=f"voxclone {importlib.metadata.version('voxclone')}, imported from {path.name[:80]}",
    )
    made_ND = embed_codes(found.codes_KT, table_VD, offsets).to(torch.bfloat16)
    notes = _notes(found, release.params.codec.frame_rate)
    if license:
        notes.append(f"Its license is {license[:100]!r}.")
    return ImportedVoice(Voice(found.codes_KT, made_ND, metadata), tuple(notes))


def _read(path: Path, release: Release) -> tuple[Found, str]:
    """The embedding of a file by its first bytes, and the license that it names."""
    head = read_head(path, 4, VoiceError)
    if head == b"GGUF":
        found, values = read_gguf_voice(path, release.params.lm.dim)
        return found, str(values.get("loom.voice.license", ""))
    if is_torch_file(path):
        refuse_old_format(path, "it again by torch.save of today", VoiceError)
        return read_torch(path, release.params.lm.dim), ""
    return read_embedding(path), ""


def _notes(found: Inversion, frame_rate: float) -> list[str]:
    notes = []
    if not bool(found.exact_T.all()):
        where = _ranges(~found.exact_T, frame_rate)
        notes.append(
            f"{int((~found.exact_T).sum())} of {len(found.exact_T)} frames are not exactly those "
            f"of any codes, and got the nearest: {where}."
        )
    if not found.has_end:
        notes.append("Its last frame was not the END frame, which was added.")
    return notes


def _ranges(marked_T: Tensor, frame_rate: float) -> str:
    """Where frames are marked, in seconds."""
    ranges, position = [], 0
    for is_marked, group in groupby(marked_T.tolist()):
        length = len(list(group))
        if is_marked:
            begin, end = position / frame_rate, (position + length) / frame_rate
            ranges.append(f"{begin:.2f} to {end:.2f} s")
        position += length
    more = f" and {len(ranges) - 5} more" if len(ranges) > 5 else ""
    return ", ".join(ranges[:5]) + more
