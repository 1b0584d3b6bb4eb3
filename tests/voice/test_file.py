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
from voxclone.voice.facts import MIGRATIONS, check_name, plain
from voxclone.voice.file import (
    FORMAT,
    Consent,
    Voice,
    VoiceFacts,
    copy_voice,
    load_voice,
    read_facts,
    save_voice,
)


def facts(**changes: object) -> VoiceFacts:
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
    return VoiceFacts.model_validate(values)


def voice(frames: int = 5) -> Voice:
    generator = torch.Generator().manual_seed(frames)
    codes = torch.randint(21, (7, frames), generator=generator)
    rows = torch.randn(frames + 1, 12, generator=generator).bfloat16()
    return Voice(codes, rows, facts())


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.integers(1, 400))
def test_round_trip(frames: int, tmp_path: Path) -> None:
    path = tmp_path / "a.voice.safetensors"
    saved = voice(frames)
    save_voice(saved, path)
    loaded = load_voice(path)
    assert torch.equal(loaded.codes_KT, saved.codes_KT)
    assert torch.equal(loaded.rows_ND, saved.rows_ND)
    assert loaded.facts == saved.facts
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def tensors(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    made = voice()
    values = {
        "codes": made.codes_KT.to(torch.int16),
        "embedding": made.rows_ND,
        **changes,
    }
    return {name: tensor for name, tensor in values.items() if tensor is not None}


HEADER = {"voxclone": facts().model_dump_json()}
BAD = {
    "no codes": (tensors(codes=None), HEADER),
    "a stranger": (tensors(other=torch.zeros(2)), HEADER),
    "codes as floats": (tensors(codes=torch.zeros(7, 5)), HEADER),
    "rows in fp32": (tensors(embedding=torch.zeros(6, 12)), HEADER),
    "a row too few": (tensors(embedding=torch.zeros(5, 12).bfloat16()), HEADER),
    "flat rows": (tensors(embedding=torch.zeros(72).bfloat16()), HEADER),
    "rows not finite": (tensors(embedding=torch.full((6, 12), torch.nan).bfloat16()), HEADER),
    "no header": (tensors(), {}),
    "header not JSON": (tensors(), {"voxclone": "{"}),
    "header a list": (tensors(), {"voxclone": "[]"}),
    "later format": (tensors(), {"voxclone": facts(format="voxclone.voice/9").model_dump_json()}),
    "format no text": (
        tensors(),
        {"voxclone": json.dumps(json.loads(HEADER["voxclone"]) | {"format": {}})},
    ),
    "consent without a date": (
        tensors(),
        {"voxclone": facts().model_dump_json(exclude={"consent": {"date"}})},
    ),
    "negative codes": (tensors(codes=torch.full((7, 5), -1, dtype=torch.int16)), HEADER),
    "no code books": (tensors(codes=torch.zeros(0, 5, dtype=torch.int16)), HEADER),
    "rows without width": (tensors(embedding=torch.zeros(6, 0).bfloat16()), HEADER),
    "nested lists": (tensors(), {"voxclone": "[" * 20_000}),
    "a number of 60,000 digits": (tensors(), {"voxclone": "9" * 60_000}),
    "infinite seconds": (
        tensors(),
        {"voxclone": HEADER["voxclone"].replace("4.0", "Infinity")},
    ),
    "a terminal's commands": (tensors(), {"voxclone": facts(name="\x1b[2J").model_dump_json()}),
    "text from right to left": (tensors(), {"voxclone": facts(tool="\u202e").model_dump_json()}),
    "half a character": (tensors(), {"voxclone": HEADER["voxclone"].replace("anna", "\\ud800")}),
    "unknown fact": (
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
        load_voice(path)
    assert len(str(refusal.value)) < 1200 and str(refusal.value).isprintable()


def test_a_later_format_names_the_version_to_use(tmp_path: Path) -> None:
    path = tmp_path / "later.voice.safetensors"
    later = facts(format="voxclone.voice/9", tool="voxclone 7.1").model_dump_json()
    save_file(tensors(), path, {"voxclone": later})
    with pytest.raises(VoiceError, match=r"voice/9'.* reads .*voice/3: use .*\(voxclone 7.1\)"):
        load_voice(path)


@pytest.mark.parametrize("number", [1, 2])
def test_older_formats_are_still_read(number: int) -> None:
    """The files were written by the versions before formats 2 and 3."""
    loaded = load_voice(Path(__file__).parent / "data" / f"anna-{number}.voice.safetensors")
    expected = voice()
    assert torch.equal(loaded.codes_KT, expected.codes_KT)
    assert torch.equal(loaded.rows_ND, expected.rows_ND)
    dated = expected.facts.consent.model_copy(update={"date": loaded.facts.consent.date})
    assert loaded.facts == expected.facts.model_copy(update={"consent": dated})
    assert loaded.facts.format == FORMAT and loaded.facts.transcript == ""


def test_every_format_but_the_newest_has_a_step_to_the_next() -> None:
    formats = [f"voxclone.voice/{number}" for number in range(1, int(FORMAT[-1]))]
    assert list(MIGRATIONS) == formats
    for old, new in zip(formats, [*formats[1:], FORMAT], strict=True):
        assert MIGRATIONS[old]({"format": old})["format"] == new


def test_a_voice_without_consent_is_not_written(tmp_path: Path) -> None:
    made = voice()
    thrown_away = Voice(
        made.codes_KT, made.rows_ND, facts(consent=Consent(kind="unstated", statement="at once"))
    )
    with pytest.raises(VoiceError, match="consent"):
        save_voice(thrown_away, tmp_path / "a.voice.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_new_voice_takes_nobody_s_place(tmp_path: Path) -> None:
    path, made = tmp_path / "a.voice.safetensors", voice()
    save_voice(made, path, new=True)
    before = path.read_bytes()
    with pytest.raises(VoiceExistsError, match="already"):
        save_voice(made, path, new=True)
    with pytest.raises(VoiceExistsError):
        copy_voice(path, path, made.facts, new=True)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_new_voice_where_links_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    path = tmp_path / "a.voice.safetensors"
    save_voice(voice(), path, new=True)
    with pytest.raises(VoiceExistsError):
        save_voice(voice(), path, new=True)
    assert load_voice(path).facts == voice().facts and list(tmp_path.iterdir()) == [path]


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    made, path = voice(), tmp_path / "a.voice.safetensors"
    for bad in (
        Voice(made.codes_KT - 30, made.rows_ND, made.facts),
        Voice(made.codes_KT + 2**15, made.rows_ND, made.facts),
        Voice(made.codes_KT[:, 1:], made.rows_ND, made.facts),
        Voice(made.codes_KT, made.rows_ND, facts(preprocessing={"x": "y" * 70_000})),
    ):
        with pytest.raises(VoiceError):
            save_voice(bad, path)
    assert not list(tmp_path.iterdir())


def test_facts_are_read_and_changed_without_the_numbers(tmp_path: Path) -> None:
    first, second = tmp_path / "a.voice.safetensors", tmp_path / "b.voice.safetensors"
    save_voice(voice(), first)
    assert read_facts(first) == voice().facts
    copy_voice(first, second, facts(name="berta"))
    loaded = load_voice(second)
    assert loaded.facts.name == "berta" and torch.equal(loaded.rows_ND, voice().rows_ND)
    assert torch.equal(loaded.codes_KT, voice().codes_KT)
    code = (
        "import sys, pathlib\n"
        "from voxclone.voice.file import copy_voice, read_facts\n"
        f"path = pathlib.Path({str(first)!r})\n"
        "copy_voice(path, path, read_facts(path))\n"
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
    assert plain(hostile) == {"a?": ["b?", ["c?", 1.5, None]]}


def test_missing_directory_and_text(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(VoiceError, match="no voice file"):
            load_voice(path)
    (tmp_path / "text").write_text("hello, I am not a voice")
    with pytest.raises(VoiceError):
        load_voice(tmp_path / "text")
    with pytest.raises(VoiceError, match="cannot be written"):
        save_voice(voice(), tmp_path / "nowhere" / "a.voice.safetensors")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1), value=st.integers(0, 255), cut=st.floats(0.5, 1.0))
def test_damaged_files_are_read_or_refused_and_nothing_else(
    place: float, value: int, cut: float, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.voice.safetensors"
    save_voice(voice(), path)
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] = value
    path.write_bytes(content[: int(cut * len(content)) + 1])
    with contextlib.suppress(VoiceError):
        load_voice(path)
