"""`voxclone train adapter` from end to end on the mini release: refused, forced, used."""

import json
from pathlib import Path

import pytest

from tests.helpers.command import Command, sentence
from tests.train.test_adapter_gate import write_manifest
from voxclone.train.adapter.acceptance import ADAPTER_FOLDER, GATE_FILE
from voxclone.tts.adapter_file import read_adapter

SMALL = [
    "--set", "run.steps=2", "--set", "run.validate_every=2", "--set", "utterances=12", "--set",
    "gate.sentences=1", "--set", "gate.reference_seconds=1.5", "--set", "gate.embedders=[ge2e]",
    "--set", "batch=2", "--set", "preset_batch=2", "--set", "consent=All agreed.",
]  # fmt: skip


def manifest_of(folder: Path) -> Path:
    rows = [
        {"speaker": f"{split}{s}", "text": "we go", "split": split}
        for split in ("train", "valid", "test")
        for s in range(2)
        for _ in range(2)
    ]
    return write_manifest(folder, rows)


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["lora", "voice"])
def test_an_adapter_is_refused_forced_and_used(
    reader: str, command: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    given = [
        "train", "adapter", reader, "--speech", manifest_of(tmp_path),
        "-o", run, *SMALL,
    ]  # fmt: skip
    code, out, error = command(*given)
    assert code == 3 and "fails its gate and is not written" in sentence(error)
    assert "Proved: the training reads presets as generation does" in out
    report = json.loads((run / GATE_FILE).read_text())
    assert not report["passed"] and report["lost"] and not (run / ADAPTER_FOLDER).exists()
    assert command(*given)[0] == 1  # a run is there
    code, out, _ = command(*given, "--resume", "--force")
    assert code == 0 and "Failed its gate, and written as such" in out
    found = read_adapter(run / ADAPTER_FOLDER)
    assert not found.card.passed and found.card.consent == "All agreed."
    assert found.card.data["speakers"] == 2 and "clone/similarity_ge2e" in found.card.metrics
    clone = ["clone", "examples/reference.flac", "We go.", "-o", tmp_path / "a.wav", "--seed", 1]
    code, out, _ = command(*clone, "--adapter", run / ADAPTER_FOLDER)
    assert code == 0 and "failed its gate" in out
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert any(name.startswith("change/") for line in lines for name in line)


def test_an_encoder_of_another_release_is_refused(command: Command, tmp_path: Path) -> None:
    from tests.helpers.tiny_release import tiny_params, write_encoder

    other = write_encoder(tmp_path / "e.safetensors", tiny_params())
    code, _, error = command(
        "train", "adapter", "voice", "--speech", manifest_of(tmp_path),
        "--encoder", other, "-o", tmp_path / "run",
    )  # fmt: skip
    assert code == 1 and str(other) in sentence(error)


def test_no_speech_is_a_sentence(command: Command, tmp_path: Path) -> None:
    code, _, error = command("train", "adapter", "voice", "-o", tmp_path / "r")
    assert code == 1 and "No speech is named" in sentence(error)
