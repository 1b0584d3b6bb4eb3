"""Voices of other programs: their rows become the codes that they were made of."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.command import Command, sentence
from tests.runtimes.conftest import Example
from voxclone.errors import VoiceError
from voxclone.release.presets import write_preset
from voxclone.runtimes.export import export_voice
from voxclone.runtimes.importing import import_voice
from voxclone.runtimes.table import RUNTIMES
from voxclone.voice.file import Voice
from voxclone.voice.metadata import Consent
from voxclone.voice.resolve import resolve_file

CONSENT = Consent(kind="self", statement="I am Dora.")


def written(kind: str, wide: Example, folder: Path) -> Path:
    """The voice as another program keeps it."""
    path = folder / f"dora{kind}"
    if kind == ".pt":
        write_preset(path, wide.voice.embedding_ND)
    elif kind == ".gguf":
        export_voice(wide.voice, RUNTIMES["loom.cpp"], wide.release, path)
    else:
        save_file({"embedding": wide.voice.embedding_ND.float()}, path)
    return path


@pytest.mark.parametrize("kind", [".safetensors", ".pt", ".gguf"])
def test_codes_come_back_exactly(kind: str, wide: Example, tmp_path: Path) -> None:
    assert wide.voice.source is not None
    found = import_voice(written(kind, wide, tmp_path), wide.release, "dora", CONSENT)
    assert torch.equal(found.voice.codes_KT, wide.voice.source.codes_KT)
    assert torch.equal(found.voice.embedding_ND, wide.voice.embedding_ND)
    assert not any("exactly" in note or "END" in note for note in found.notes)
    path = tmp_path / "dora.voice.safetensors"
    found.voice.save(path)
    assert torch.equal(resolve_file(path, wide.release).embedding_ND, wide.voice.embedding_ND)


def test_rows_that_no_codes_give_are_named(wide: Example, tmp_path: Path) -> None:
    assert wide.voice.source is not None
    rows_ND = wide.voice.embedding_ND.clone()[:-1]
    rows_ND[10:12] *= 1.01
    rows_ND[30, 5] += 0.5
    path = tmp_path / "changed.safetensors"
    save_file({"embedding": rows_ND}, path)
    found = import_voice(path, wide.release, "dora", CONSENT)
    assert torch.equal(found.voice.codes_KT, wide.voice.source.codes_KT)  # the nearest
    assert "3 of 40 frames" in found.notes[0] and "0.10 to 0.12 s, 0.30 to 0.31 s" in found.notes[0]
    assert "END frame" in found.notes[1]


def test_rows_of_another_model_are_refused(wide: Example, tiny: Example, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"embedding": torch.randn(6, 3072, generator=torch.Generator().manual_seed(0))}, path)
    with pytest.raises(VoiceError, match=r"0 of its 6 frames"):
        import_voice(path, wide.release, "dora", CONSENT)
    with pytest.raises(VoiceError, match=r"width of 3072"):
        import_voice(path, tiny.release, "dora", CONSENT)
    save_file({"embedding": torch.full((6, 3072), torch.nan)}, path)
    with pytest.raises(VoiceError, match="not finite"):
        import_voice(path, wide.release, "dora", CONSENT)
    for content in (b"", b"GGUF", b"PK\x03\x04", b"{}"):
        path.write_bytes(content)
        with pytest.raises(VoiceError):
            import_voice(path, wide.release, "dora", CONSENT)


def test_the_command(wide: Example, tmp_path: Path, command: Command) -> None:
    file, kept = written(".safetensors", wide, tmp_path), tmp_path / "voices"
    words = ["voices", "import", file, "--voices", kept, "--model", wide.release.path]
    assert "--consent" in sentence(command(*words, "--name", "dora")[2])
    words += ["--consent", "self", "--statement", "I am Dora."]
    code, printed, error = command(*words, "--name", "dora")
    assert code == 0 and "0.4 s of codes" in printed, error
    voice = Voice.load(kept / "dora.voice.safetensors")
    assert voice.metadata.consent.statement == "I am Dora."
    assert "imported from dora.safetensors" in voice.metadata.tool
    code, _, error = command(*words, "--name", "dora")
    assert code == 2 and "--replace" in sentence(error)
    assert command(*words, "--name", "dora", "--replace")[0] == 0
