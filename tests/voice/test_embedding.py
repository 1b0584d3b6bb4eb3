"""A voice outlives its release: rows are made anew of codes, only where they mean the same."""

from dataclasses import replace

import pytest
import torch

from tests.helpers.tiny_release import tiny_params, write_relative, write_tiny_release
from voxclone.errors import VoiceError
from voxclone.io import tensor_hash
from voxclone.release.encoder_file import BOOK, book_hash
from voxclone.release.release import Release, load_table
from voxclone.spec import TABLE
from voxclone.voice.embedding import reembedded, rows_for, rows_of
from voxclone.voice.file import FORMAT, Consent, Voice, VoiceFacts


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    folder = tmp_path_factory.mktemp("relatives")
    first = write_tiny_release(folder / "first")
    write_relative(folder / "table", first, (TABLE,))
    write_relative(folder / "book", first, (BOOK[1],))
    write_relative(folder / "both", first, (TABLE, BOOK[0]))
    return {path.name: Release.open(path) for path in folder.iterdir()}


def made_for(release: Release, **changes: object) -> Voice:
    params = tiny_params()
    generator = torch.Generator().manual_seed(1)
    sizes = [params.audio.semantic_codebook_size] + [21] * params.audio.n_acoustic_codebook
    codes_KT = torch.stack([torch.randint(size, (9,), generator=generator) for size in sizes])
    facts = VoiceFacts(
        name="anna", consent=Consent(kind="self", statement="I agree."), encoder_hash="e",
        table_hash=tensor_hash(load_table(release)), book_hash=book_hash(release),
        enrolment="i", reference_seconds=0.7, reference_hash="r", tool="t",
    )  # fmt: skip
    return Voice(codes_KT, rows_of(codes_KT, release), facts.model_copy(update=changes))


def test_rows_of_the_own_release_are_those_of_the_file(releases: dict[str, Release]) -> None:
    voice = made_for(releases["first"])
    nudged = replace(voice, rows_ND=voice.rows_ND.clone())
    nudged.rows_ND[0, 0] *= 1 + 2**-7  # a sum rounded apart
    found = rows_for(nudged, releases["first"], "anna")
    assert torch.equal(found.rows_ND, nudged.rows_ND) and not found.made_anew


def test_another_table_gets_rows_by_the_codes(releases: dict[str, Release]) -> None:
    voice, other = made_for(releases["first"]), releases["table"]
    found = rows_for(voice, other, "anna")
    assert found.made_anew and torch.equal(found.rows_ND, rows_of(voice.codes_KT, other))
    assert not torch.equal(found.rows_ND, voice.rows_ND)
    moved = reembedded(voice, other, "anna")
    assert moved.facts.table_hash == tensor_hash(load_table(other))
    assert moved.facts.enrolment is None and torch.equal(moved.codes_KT, voice.codes_KT)
    assert not rows_for(moved, other, "anna").made_anew
    back = reembedded(moved, releases["first"], "anna")
    assert torch.equal(back.rows_ND, voice.rows_ND)


@pytest.mark.parametrize("name", ["book", "both"])
def test_another_code_book_is_refused(name: str, releases: dict[str, Release]) -> None:
    with pytest.raises(VoiceError, match=r"another code book .* Enroll the recording again"):
        rows_for(made_for(releases["first"]), releases[name], "anna")


def test_an_old_file_is_read_by_its_own_release_and_can_be_brought_up_to_date(
    releases: dict[str, Release],
) -> None:
    old = made_for(releases["first"], book_hash=None, enrolment=None)
    assert not rows_for(old, releases["first"], "anna").made_anew
    with pytest.raises(VoiceError, match="did not note the code book"):
        rows_for(old, releases["table"], "anna")
    updated = reembedded(old, releases["first"], "anna")
    assert updated.facts.format == FORMAT and updated.facts.book_hash
    assert rows_for(updated, releases["table"], "anna").made_anew


def test_rows_that_are_not_those_of_the_codes_are_refused(releases: dict[str, Release]) -> None:
    voice = made_for(releases["first"])
    changed_ND = voice.rows_ND.clone()
    changed_ND[3] = changed_ND[4]
    for rows_ND in (changed_ND, voice.rows_ND[:, :5], voice.rows_ND * 1e30):
        with pytest.raises(VoiceError, match="not those of its codes"):
            rows_for(replace(voice, rows_ND=rows_ND), releases["first"], "anna")


@pytest.mark.parametrize("book, code", [(0, 50), (6, 21)])
@pytest.mark.parametrize("name", ["first", "table"])
def test_codes_that_no_code_book_has_are_refused(
    book: int, code: int, name: str, releases: dict[str, Release]
) -> None:
    """One too many would read a row of the next code book, or none at all."""
    voice = made_for(releases["first"])
    voice.codes_KT[book, 2] = code
    with pytest.raises(VoiceError, match=f"code {code} in code book {book}"):
        rows_for(voice, releases[name], "anna")
    with pytest.raises(VoiceError, match="codes of 6 code books"):
        rows_for(replace(voice, codes_KT=voice.codes_KT[:6]), releases[name], "anna")
