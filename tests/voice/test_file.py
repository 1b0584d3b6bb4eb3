"""The voice file: round trip, and nothing else is taken for one."""

import contextlib
import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from voxclone.errors import VoiceError, VoiceExistsError
from voxclone.voice.file import Voice, copy_voice, read_metadata
from voxclone.voice.metadata import (
    FORMAT,
    MIGRATIONS,
    Consent,
    VoiceMetadata,
    check_name,
    printable,
)
from voxclone.voice.store import reference_report


def metadata(**changes: object) -> VoiceMetadata:
    values = {
        "name": "anna",
        "consent": Consent(kind="self", statement="I agree."),
        "encoder_hash": "e",
        "table_hash": "t",
        "reference_seconds": 4.0,
        "reference_hash": "r",
        "tool": "voxclone test",
        **changes,
    }
    return VoiceMetadata.model_validate(values)


def voice(frames: int = 5) -> Voice:
    generator = torch.Generator().manual_seed(frames)
    codes = torch.randint(21, (7, frames), generator=generator)
    embedding = torch.randn(frames + 1, 12, generator=generator).bfloat16()
    return Voice(codes, embedding, metadata())


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.integers(1, 400))
def test_round_trip(frames: int, tmp_path: Path) -> None:
    path = tmp_path / "a.voice.safetensors"
    saved = voice(frames)
    saved.save(path)
    loaded = Voice.load(path)
    assert torch.equal(loaded.codes_KT, saved.codes_KT)
    assert torch.equal(loaded.embedding_ND, saved.embedding_ND)
    assert loaded.metadata == saved.metadata
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def tensors(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    made = voice()
    values = {
        "codes": made.codes_KT.to(torch.int16),
        "embedding": made.embedding_ND,
        **changes,
    }
    return {name: tensor for name, tensor in values.items() if tensor is not None}


HEADER = {"voxclone": metadata().model_dump_json()}
BAD = {
    "no codes": (tensors(codes=None), HEADER),
    "another tensor": (tensors(other=torch.zeros(2)), HEADER),
    "codes as floats": (tensors(codes=torch.zeros(7, 5)), HEADER),
    "embedding in fp32": (tensors(embedding=torch.zeros(6, 12)), HEADER),
    "a frame too few": (tensors(embedding=torch.zeros(5, 12).bfloat16()), HEADER),
    "a flat embedding": (tensors(embedding=torch.zeros(72).bfloat16()), HEADER),
    "embedding not finite": (tensors(embedding=torch.full((6, 12), torch.nan).bfloat16()), HEADER),
    "no header": (tensors(), {}),
    "header not JSON": (tensors(), {"voxclone": "{"}),
    "header a list": (tensors(), {"voxclone": "[]"}),
    "later format": (
        tensors(),
        {"voxclone": metadata(format="voxclone.voice/4").model_dump_json()},
    ),
    "format no text": (
        tensors(),
        {"voxclone": json.dumps(json.loads(HEADER["voxclone"]) | {"format": {}})},
    ),
    "consent without a date": (
        tensors(),
        {"voxclone": metadata().model_dump_json(exclude={"consent": {"date"}})},
    ),
    "negative codes": (tensors(codes=torch.full((7, 5), -1, dtype=torch.int16)), HEADER),
    "no codebooks": (tensors(codes=torch.zeros(0, 5, dtype=torch.int16)), HEADER),
    "embedding without width": (tensors(embedding=torch.zeros(6, 0).bfloat16()), HEADER),
    "nested lists": (tensors(), {"voxclone": "[" * 20_000}),
    "a number of 60,000 digits": (tensors(), {"voxclone": "9" * 60_000}),
    "infinite seconds": (
        tensors(),
        {"voxclone": HEADER["voxclone"].replace("4.0", "Infinity")},
    ),
    "a terminal's commands": (tensors(), {"voxclone": metadata(name="\x1b[2J").model_dump_json()}),
    "text from right to left": (tensors(), {"voxclone": metadata(tool="\u202e").model_dump_json()}),
    "half a character": (tensors(), {"voxclone": HEADER["voxclone"].replace("anna", "\\ud800")}),
    "unknown key": (
        tensors(),
        {"voxclone": json.dumps(json.loads(HEADER["voxclone"]) | {"x": 1})},
    ),
    "huge header": (tensors(), HEADER | {"more": "x" * 100_000}),
}


@pytest.mark.parametrize("name", BAD)
def test_other_files_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.voice.safetensors"
    save_file(*BAD[name][:1], path, BAD[name][1])
    with pytest.raises(VoiceError) as refusal:
        Voice.load(path)
    assert len(str(refusal.value)) < 1200 and str(refusal.value).isprintable()


def test_a_later_format_names_the_version_to_use(tmp_path: Path) -> None:
    path = tmp_path / "later.voice.safetensors"
    later = metadata(format="voxclone.voice/4", tool="voxclone 7.1").model_dump_json()
    save_file(tensors(), path, {"voxclone": later})
    with pytest.raises(VoiceError, match=r"voice/4'.* reads .*voice/3: use .*\(voxclone 7.1\)"):
        Voice.load(path)


DATA = Path(__file__).parent / "data"


def test_the_first_format_is_still_read() -> None:
    """The file was written by voxclone 0.1.0 before format 2."""
    loaded = Voice.load(DATA / "anna-1.voice.safetensors")
    expected = voice()
    assert torch.equal(loaded.codes_KT, expected.codes_KT)
    assert torch.equal(loaded.embedding_ND, expected.embedding_ND)
    dated = expected.metadata.consent.model_copy(update={"date": loaded.metadata.consent.date})
    assert loaded.metadata == expected.metadata.model_copy(update={"consent": dated})
    assert loaded.metadata.format == FORMAT and loaded.metadata.codebook_hash is None


def test_the_second_format_is_still_read_and_written_again(tmp_path: Path) -> None:
    """The file was written by voxclone 0.1.0 before format 3, after a refinement."""
    path = tmp_path / "a.voice.safetensors"
    loaded = Voice.load(DATA / "anna-2.voice.safetensors")
    assert torch.equal(loaded.codes_KT, voice().codes_KT)
    assert torch.equal(loaded.embedding_ND, voice().embedding_ND)
    found = loaded.metadata
    assert found.format == FORMAT and found.consent.statement == "A letter."
    assert (found.codebook_hash, found.enrollment_id) == ("b", "i")
    assert found.license.startswith("CC BY-NC") and found.similarity == {
        "ge2e, decoded codes": 0.71
    }
    refinement = found.preprocessing["refinement"]
    assert [each["similarity"] for each in refinement["evaluations"]] == [0.7, 0.75]
    report = reference_report(found)
    assert report is not None and report.speaker_consistency == 0.81
    assert report.parts[0].speaker_consistency == 0.9
    loaded.save(path)
    assert Voice.load(path).metadata == found
    for old in ("likeness", "enrolment", "book_hash", "licence", "judged"):
        assert f'"{old}":' not in read_metadata(path).model_dump_json()


def test_every_format_but_the_newest_has_a_step_to_the_next() -> None:
    formats = [f"voxclone.voice/{number}" for number in range(1, int(FORMAT[-1]))]
    assert list(MIGRATIONS) == formats
    for old, new in zip(formats, [*formats[1:], FORMAT], strict=True):
        assert MIGRATIONS[old]({"format": old})["format"] == new


def test_a_voice_without_consent_is_not_written(tmp_path: Path) -> None:
    made = voice()
    unstated = Voice(
        made.codes_KT,
        made.embedding_ND,
        metadata(consent=Consent(kind="unstated", statement="at once")),
    )
    with pytest.raises(VoiceError, match="consent"):
        unstated.save(tmp_path / "a.voice.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_new_voice_replaces_nothing(tmp_path: Path) -> None:
    path, made = tmp_path / "a.voice.safetensors", voice()
    made.save(path, new=True)
    before = path.read_bytes()
    with pytest.raises(VoiceExistsError, match="already"):
        made.save(path, new=True)
    with pytest.raises(VoiceExistsError):
        copy_voice(path, path, made.metadata, new=True)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_new_voice_where_links_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    path = tmp_path / "a.voice.safetensors"
    voice().save(path, new=True)
    with pytest.raises(VoiceExistsError):
        voice().save(path, new=True)
    assert Voice.load(path).metadata == voice().metadata and list(tmp_path.iterdir()) == [path]


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    made, path = voice(), tmp_path / "a.voice.safetensors"
    for bad in (
        Voice(made.codes_KT - 30, made.embedding_ND, made.metadata),
        Voice(made.codes_KT + 2**15, made.embedding_ND, made.metadata),
        Voice(made.codes_KT[:, 1:], made.embedding_ND, made.metadata),
        Voice(made.codes_KT, made.embedding_ND, metadata(preprocessing={"x": "y" * 70_000})),
    ):
        with pytest.raises(VoiceError):
            bad.save(path)
    assert not list(tmp_path.iterdir())


def test_metadata_are_read_and_changed_without_the_tensors(tmp_path: Path) -> None:
    first, second = tmp_path / "a.voice.safetensors", tmp_path / "b.voice.safetensors"
    voice().save(first)
    assert read_metadata(first) == voice().metadata
    copy_voice(first, second, metadata(name="berta"))
    loaded = Voice.load(second)
    assert loaded.metadata.name == "berta" and torch.equal(
        loaded.embedding_ND, voice().embedding_ND
    )
    assert torch.equal(loaded.codes_KT, voice().codes_KT)
    code = (
        "import sys, pathlib\n"
        "from voxclone.voice.file import copy_voice, read_metadata\n"
        f"path = pathlib.Path({str(first)!r})\n"
        "copy_voice(path, path, read_metadata(path))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "name", ["", "Anna", "../a", "a/b", "a.b", "con", "com1", "a" * 65, "é", "-a"]
)
def test_names_are_identifiers(name: str) -> None:
    with pytest.raises(VoiceError, match="cannot be a voice's"):
        check_name(name)
    assert check_name("anna-2_b") == "anna-2_b"


def test_text_of_recordings_is_made_fit_to_print() -> None:
    hostile = {"a\x1b": ["b\ud800", ("c\u202e", 1.5, None)]}
    assert printable(hostile) == {"a?": ["b?", ["c?", 1.5, None]]}


def test_missing_directory_and_text(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(VoiceError, match=r"no voice file|a directory"):
            Voice.load(path)
    (tmp_path / "text").write_text("hello, I am not a voice")
    with pytest.raises(VoiceError):
        Voice.load(tmp_path / "text")
    with pytest.raises(VoiceError, match="cannot be written"):
        voice().save(tmp_path / "nowhere" / "a.voice.safetensors")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1), value=st.integers(0, 255), cut=st.floats(0.5, 1.0))
def test_damaged_files_are_read_or_refused_and_nothing_else(
    place: float, value: int, cut: float, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.voice.safetensors"
    voice().save(path)
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] = value
    path.write_bytes(content[: int(cut * len(content)) + 1])
    with contextlib.suppress(VoiceError):
        Voice.load(path)


def test_the_adapter_of_a_voice_is_written_where_there_is_one(tmp_path: Path) -> None:
    """Without one, the header is that of earlier versions, which refuse unknown keys."""
    codes_KT, embedding_ND = torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, 4)
    for value in (None, "a" * 64):
        path = tmp_path / f"{value}.voice.safetensors"
        Voice(codes_KT, embedding_ND, metadata(adapter_hash=value)).save(path)
        assert read_metadata(path).adapter_hash == value
        assert (b"adapter_hash" in path.read_bytes()) == (value is not None)
