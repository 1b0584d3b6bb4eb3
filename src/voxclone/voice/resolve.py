"""The voice embedding for one release: of a preset, or of a voice file.

The codes of a voice file mean the same to every release with the same codebook; its embedding
belongs to one embedding table. A voice thus outlives a release whose language model is trained
further: for another table, the codes are embedded again.

Shapes: K codebooks, T frames, N = T + 1 frames of an embedding, D width, V table rows.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from voxclone.errors import VoiceError
from voxclone.io import tensor_hash
from voxclone.release.encoder_file import codebook_hash
from voxclone.release.release import Release, load_preset, load_table
from voxclone.release.tensors import codebook_sizes
from voxclone.voice.embedding import voice_embedding
from voxclone.voice.file import SUFFIX, Voice
from voxclone.voice.metadata import FORMAT

# Two sums of one frame may be rounded apart by a step of bf16, no more.
RELATIVE, ABSOLUTE = 2**-6, 1e-3


@dataclass(frozen=True)
class ResolvedVoice:
    """An embedding [N, D] in bf16 for one release; `source` is the content of the voice file, None
    for a preset. `reembedded` if the embedding is not that of the file, but made of its codes."""

    name: str
    embedding_ND: Tensor
    source: Voice | None
    reembedded: bool = False


def resolve_preset(name: str, release: Release) -> ResolvedVoice:
    """A preset of the release. Raises VoiceError."""
    return ResolvedVoice(name, load_preset(release, name), None)


def resolve_file(path: Path, release: Release) -> ResolvedVoice:
    """The voice of a file. Raises VoiceError for a file that cannot be read, and as
    `resolve_voice` does."""
    return resolve_voice(Voice.load(path), release, path)


def resolve_voice(voice: Voice, release: Release, source: Path) -> ResolvedVoice:
    """The embedding of a voice for `release`; `source` names the voice in messages.

    It is that of the file if the release has the table that the file was made for, else it is made
    of the codes. Raises VoiceError for another codebook, for a file that does not name its
    codebook, for codes that no codebook has, and for an embedding that is not that of the codes.
    """
    name = voice.metadata.name or source.name.removesuffix(SUFFIX)
    table_VD = load_table(release)
    same_table = voice.metadata.table_hash == tensor_hash(table_VD)
    _check_codebook(voice, release, source, same_table)
    _check_codes(voice.codes_KT, release, source)
    made_ND = voice_embedding(voice.codes_KT, release, table_VD)
    if not same_table:
        return ResolvedVoice(name, made_ND, voice, reembedded=True)
    stored_ND = voice.embedding_ND
    allowed = ABSOLUTE * float(table_VD.abs().max())
    if stored_ND.shape != made_ND.shape or not torch.allclose(
        stored_ND.float(), made_ND.float(), rtol=RELATIVE, atol=allowed
    ):
        raise VoiceError(
            f"The embedding in {source} is not that of its codes in the table that it names: the "
            "file is damaged or was changed. Enroll the recording again."
        )
    return ResolvedVoice(name, stored_ND, voice)


def reembed(voice: Voice, release: Release, source: Path) -> Voice:
    """The voice with embedding and metadata for `release`, in the present format. Raises VoiceError
    as `resolve_voice` does."""
    embedding_ND = resolve_voice(voice, release, source).embedding_ND
    changes: dict[str, str | None] = {
        "format": FORMAT,
        "table_hash": tensor_hash(load_table(release)),
        "codebook_hash": codebook_hash(release),
    }
    if changes["table_hash"] != voice.metadata.table_hash:
        changes |= {"enrollment_id": None}  # no enrollment for that release gave this embedding
    metadata = voice.metadata.model_copy(update=changes)
    return dataclasses.replace(voice, embedding_ND=embedding_ND, metadata=metadata)


def _check_codebook(voice: Voice, release: Release, source: Path, same_table: bool) -> None:
    if voice.metadata.codebook_hash is None:
        if same_table:  # a table is learned with its codebook
            return
        raise VoiceError(
            f"{source} was made for another embedding table than that of {release.path}, by a "
            "version that did not store the codebook's hash, so its codes cannot be embedded "
            "again: update it with the release that it was made for (`voxclone voices update`), or "
            "enroll the recording again."
        )
    if voice.metadata.codebook_hash != codebook_hash(release):
        raise VoiceError(
            f"{source} was made for another codebook than that of {release.path}: its codes "
            "would mean something else there. Enroll the recording again with this release."
        )


def _check_codes(codes_KT: Tensor, release: Release, source: Path) -> None:
    sizes = codebook_sizes(release.params)
    if len(codes_KT) != len(sizes):
        raise VoiceError(
            f"{source} has codes of {len(codes_KT)} codebooks, and {release.path} has "
            f"{len(sizes)}: enroll the recording again with this release."
        )
    beyond_K = codes_KT.amax(dim=1) >= torch.tensor(sizes)
    if bool(beyond_K.any()):
        book = int(beyond_K.float().argmax())
        raise VoiceError(
            f"{source} has the code {int(codes_KT[book].max())} in codebook {book}, which has "
            f"{sizes[book]} codes: the file is damaged."
        )
