"""The rows of a voice file for a release: as they are stored, or made anew from the codes.

The codes mean the same to every release with the same code book; the rows belong to one embedding
table. A voice thus outlives a release whose language model is trained further.

Shapes: K code books, T frames, N = T + 1 rows, D width, V table rows.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.errors import VoiceError
from voxclone.io import tensor_hash
from voxclone.release.encoder_file import book_hash
from voxclone.release.release import Release, load_table
from voxclone.release.tensors import codebook_offsets
from voxclone.voice.facts import FORMAT
from voxclone.voice.file import Voice
from voxclone.voice.rows import voice_rows

# Two sums of one row may round apart by a step of bf16, no more.
RELATIVE, ABSOLUTE = 2**-6, 1e-3


@dataclass(frozen=True)
class Embedded:
    """Rows [N, D] (bf16) for a release; `made_anew` if they are not those of the file."""

    rows_ND: Tensor
    made_anew: bool


def rows_of(codes_KT: Tensor, release: Release, table_VD: Tensor | None = None) -> Tensor:
    """Rows [T + 1, D] of codes for a release, in bf16."""
    table_VD = load_table(release) if table_VD is None else table_VD
    return voice_rows(codes_KT, table_VD, codebook_offsets(release.params)).to(torch.bfloat16)


def rows_for(voice: Voice, release: Release, source: object) -> Embedded:
    """The rows of a voice for `release`; `source` names the voice in messages.

    Made for the release's own table, they are those of the file; for another table, they are made
    anew from the codes, since the code book is the same. Raises VoiceError for another code book,
    for a file that does not say which one it needs, for codes that no code book has, and for rows
    that are not those of the codes.
    """
    table_VD = load_table(release)
    same_table = voice.facts.table_hash == tensor_hash(table_VD)
    _check_book(voice, release, source, same_table)
    _check_codes(voice.codes_KT, release, source)
    made_ND = rows_of(voice.codes_KT, release, table_VD)
    if not same_table:
        return Embedded(made_ND, made_anew=True)
    rows_ND = voice.rows_ND
    allowed = ABSOLUTE * float(table_VD.abs().max())
    if rows_ND.shape != made_ND.shape or not torch.allclose(
        rows_ND.float(), made_ND.float(), rtol=RELATIVE, atol=allowed
    ):
        raise VoiceError(
            f"The rows of {source} are not those of its codes in the table that it names: it is "
            "damaged or was changed. Enroll the recording again."
        )
    return Embedded(rows_ND, made_anew=False)


def reembedded(voice: Voice, release: Release, source: object) -> Voice:
    """The voice with rows and facts for `release`, in today's format. Raises VoiceError as
    `rows_for` does."""
    rows_ND = rows_for(voice, release, source).rows_ND
    changes: dict[str, str | None] = {
        "format": FORMAT,
        "table_hash": tensor_hash(load_table(release)),
        "book_hash": book_hash(release),
    }
    if changes["table_hash"] != voice.facts.table_hash:
        changes |= {"enrolment": None}  # another release: no enrolment there gave these rows
    return dataclasses.replace(voice, rows_ND=rows_ND, facts=voice.facts.model_copy(update=changes))


def _check_book(voice: Voice, release: Release, source: object, same_table: bool) -> None:
    if voice.facts.book_hash is None:
        if same_table:  # a table is learned with its code book
            return
        raise VoiceError(
            f"{source} was made for another embedding table than that of {release.path}, by a "
            "version that did not note the code book, so its codes cannot be embedded again: "
            "bring it up to date with the release that it was made for (`voxclone voices update`), "
            "or enroll the recording again."
        )
    if voice.facts.book_hash != book_hash(release):
        raise VoiceError(
            f"{source} was made for another code book than that of {release.path}: its codes "
            "would mean something else there. Enroll the recording again with this release."
        )


def _check_codes(codes_KT: Tensor, release: Release, source: object) -> None:
    audio = release.params.audio
    sizes = [audio.semantic_codebook_size]
    sizes += [audio.acoustic_codebook_size] * audio.n_acoustic_codebook
    if len(codes_KT) != len(sizes):
        raise VoiceError(
            f"{source} has codes of {len(codes_KT)} code books, and {release.path} has "
            f"{len(sizes)}: enroll the recording again with this release."
        )
    beyond_K = codes_KT.amax(dim=1) >= torch.tensor(sizes)
    if bool(beyond_K.any()):
        book = int(beyond_K.float().argmax())
        raise VoiceError(
            f"{source} has the code {int(codes_KT[book].max())} in code book {book}, which has "
            f"{sizes[book]} codes: the file is damaged."
        )
