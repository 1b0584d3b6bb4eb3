"""A voice outlives its release: codes are embedded again, only where they mean the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_release import tiny_params, write_relative, write_tiny_release
from voxclone.errors import VoiceError
from voxclone.io import tensor_hash
from voxclone.release.encoder_file import CODEBOOK_TENSORS, codebook_hash
from voxclone.release.release import Release, load_table
from voxclone.spec import TABLE
from voxclone.voice.embedding import voice_embedding
from voxclone.voice.file import Voice
from voxclone.voice.metadata import FORMAT, Consent, VoiceMetadata
from voxclone.voice.resolve import reembed, resolve_voice

SOURCE = Path("anna.voice.safetensors")


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    folder = tmp_path_factory.mktemp("relatives")
    first = write_tiny_release(folder / "first")
    write_relative(folder / "table", first, (TABLE,))
    write_relative(folder / "book", first, (CODEBOOK_TENSORS[1],))
    write_relative(folder / "both", first, (TABLE, CODEBOOK_TENSORS[0]))
    return {path.name: Release.open(path) for path in folder.iterdir()}


def made_for(release: Release, **changes: object) -> Voice:
    params = tiny_params()
    generator = torch.Generator().manual_seed(1)
    sizes = [params.audio.semantic_codebook_size] + [21] * params.audio.n_acoustic_codebook
    codes_KT = torch.stack([torch.randint(size, (9,), generator=generator) for size in sizes])
    metadata = VoiceMetadata(
        name="anna", consent=Consent(kind="self", statement="I agree."), encoder_hash="e",
        table_hash=tensor_hash(load_table(release)), codebook_hash=codebook_hash(release),
        enrollment_id="i", reference_seconds=0.7, reference_hash="r", tool="t",
    )  # fmt: skip
    return Voice(codes_KT, voice_embedding(codes_KT, release), metadata.model_copy(update=changes))


def test_the_own_release_gets_the_embedding_of_the_file(releases: dict[str, Release]) -> None:
    voice = made_for(releases["first"])
    nudged = replace(voice, embedding_ND=voice.embedding_ND.clone())
    nudged.embedding_ND[0, 0] *= 1 + 2**-7  # a sum rounded apart
    found = resolve_voice(nudged, releases["first"], SOURCE)
    assert torch.equal(found.embedding_ND, nudged.embedding_ND) and not found.reembedded


def test_another_table_gets_an_embedding_of_the_codes(releases: dict[str, Release]) -> None:
    voice, other = made_for(releases["first"]), releases["table"]
    found = resolve_voice(voice, other, SOURCE)
    assert found.reembedded and torch.equal(
        found.embedding_ND, voice_embedding(voice.codes_KT, other)
    )
    assert not torch.equal(found.embedding_ND, voice.embedding_ND)
    moved = reembed(voice, other, SOURCE)
    assert moved.metadata.table_hash == tensor_hash(load_table(other))
    assert moved.metadata.enrollment_id is None and torch.equal(moved.codes_KT, voice.codes_KT)
    assert not resolve_voice(moved, other, SOURCE).reembedded
    back = reembed(moved, releases["first"], SOURCE)
    assert torch.equal(back.embedding_ND, voice.embedding_ND)


@pytest.mark.parametrize("name", ["book", "both"])
def test_another_code_book_is_refused(name: str, releases: dict[str, Release]) -> None:
    with pytest.raises(VoiceError, match=r"another codebook .* Enroll the recording again"):
        resolve_voice(made_for(releases["first"]), releases[name], SOURCE)


def test_an_old_file_is_read_by_its_own_release_and_can_be_updated(
    releases: dict[str, Release],
) -> None:
    old = made_for(releases["first"], codebook_hash=None, enrollment_id=None)
    assert not resolve_voice(old, releases["first"], SOURCE).reembedded
    with pytest.raises(VoiceError, match="did not store the codebook"):
        resolve_voice(old, releases["table"], SOURCE)
    updated = reembed(old, releases["first"], SOURCE)
    assert updated.metadata.format == FORMAT and updated.metadata.codebook_hash
    assert resolve_voice(updated, releases["table"], SOURCE).reembedded


def test_an_embedding_that_is_not_of_the_codes_is_refused(releases: dict[str, Release]) -> None:
    voice = made_for(releases["first"])
    changed_ND = voice.embedding_ND.clone()
    changed_ND[3] = changed_ND[4]
    for embedding_ND in (changed_ND, voice.embedding_ND[:, :5], voice.embedding_ND * 1e30):
        with pytest.raises(VoiceError, match="not that of its codes"):
            resolve_voice(replace(voice, embedding_ND=embedding_ND), releases["first"], SOURCE)


@pytest.mark.parametrize("book, code", [(0, 50), (6, 21)])
@pytest.mark.parametrize("name", ["first", "table"])
def test_codes_that_no_code_book_has_are_refused(
    book: int, code: int, name: str, releases: dict[str, Release]
) -> None:
    """One too many would read a row of the next codebook, or beyond the table."""
    voice = made_for(releases["first"])
    voice.codes_KT[book, 2] = code
    with pytest.raises(VoiceError, match=f"code {code} in codebook {book}"):
        resolve_voice(voice, releases[name], SOURCE)
    with pytest.raises(VoiceError, match="codes of 6 codebooks"):
        resolve_voice(replace(voice, codes_KT=voice.codes_KT[:6]), releases[name], SOURCE)
