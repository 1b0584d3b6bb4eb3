"""The voice file: round trip, and nothing else is taken for one."""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from voxclone.errors import ConfigError, VoiceError
from voxclone.voice.file import Consent, Voice, VoiceFacts, load_voice, save_voice


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
    "later format": (tensors(), {"voxclone": facts(format="voxclone.voice/2").model_dump_json()}),
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
    with pytest.raises((VoiceError, ConfigError)):
        load_voice(path)


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
    with contextlib.suppress(VoiceError, ConfigError):
        load_voice(path)
