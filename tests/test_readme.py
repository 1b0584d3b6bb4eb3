"""Every command of the README is run on the mini release: in this process, and `make demo` in a
shell."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.helpers.command import Command

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = (
    "--set run.steps=2 --set pairs.minutes=0.02 --set pairs.batch=2 --set frames=4 "
    "--set weights.cloned=0"  # two speakers are too few to be told apart
)


def blocks(language: str) -> list[str]:
    """Fenced blocks of a language, in order."""
    parts = re.split(r"^```(.*)$\n", README, flags=re.MULTILINE)
    return [body for tag, body in zip(parts[1::4], parts[2::4], strict=True) if tag == language]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording, a manifest and the configs, as a user might have it."""
    folder = tmp_path_factory.mktemp("readme")
    samples, rate = soundfile.read(ROOT / "examples" / "reference.flac")
    soundfile.write(folder / "me.wav", samples, rate)
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "my").mkdir()
    rows = []
    for speaker in ("me", "you"):  # nobody else has given a recording
        row = {"id": speaker, "path": "../me.wav", "speaker": speaker, "license": "CC0-1.0"}
        rows.append(row | {"duration": len(samples) / rate, "text": "the news of the day"})
    lines = "\n".join(json.dumps(row) for row in rows)
    (folder / "my" / "manifest.jsonl").write_text(lines + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def run(place: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Runs lines `voxclone ...` in this process, in the folder, and gives their output."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("voxclone.voice.store.default_folder", lambda: place / "voices-at-home")

    def run_lines(script: str) -> str:
        outputs = []
        for line in script.strip().splitlines():
            program, *arguments = shlex.split(line)
            assert program == "voxclone", line
            code, printed, error = command(*arguments)
            assert code == 0 or (code == 3 and arguments[0] == "diagnose"), f"{line}\n{error}"
            outputs.append(printed)
        return "".join(outputs)

    return run_lines


def run_shell(script: str, folder: Path) -> str:
    """Runs a script as a user would."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "HOME": str(folder)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def sound(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path)
    assert rate == 24000 and len(samples) > 0.3 * rate
    assert 0.005 < np.sqrt(np.mean(samples**2)) < 0.5
    return samples


def test_commands(place: Path, run: Callable[[str], str]) -> None:
    printed = "".join(run(block) for block in blocks("bash"))
    for word in (
        "Reference",
        "Voice",
        "Speech",
        "Similarity",
        "seed 1",
        "encoder: withheld",
        "bit for bit",
    ):
        assert word in printed, word
    for name in ("out.wav", "preset.wav"):
        sound(place / name)
    stored = place / "voices-at-home" / "anna.voice.safetensors"
    assert stored.exists() and "consent: self" in printed
    assert "Verdict    21 of 21 voices would speak as intended." in printed
    assert (place / "voxtral-anna" / "voice_embedding" / "anna.pt").exists()


def test_training_as_shown_but_short(place: Path, run: Callable[[str], str]) -> None:
    (shown,) = [block for block in blocks("") if "train encoder" in block]
    train, clone = shown.strip().splitlines()
    run(f"{train} {SHORT}")
    run(clone.replace("out.wav", "trained.wav"))
    assert (place / "trained.wav").exists()


def test_refining_as_shown_but_short(place: Path, run: Callable[[str], str]) -> None:
    (shown,) = [block for block in blocks("") if "voxclone refine" in block]
    printed = run(f"{shown.strip()} --steps 2")
    assert "Evaluated" in printed and (place / "refined.voice.safetensors").exists()


def test_injecting_as_shown(place: Path, run: Callable[[str], str]) -> None:
    (shown,) = [block for block in blocks("") if "voxclone inject" in block]
    inject, clone = shown.strip().splitlines()
    trained = place / "runs" / "encoder" / "encoder.safetensors"
    if not trained.exists():  # where the training above was not run
        trained.parent.mkdir(parents=True)
        shutil.copy(ROOT / "src" / "voxclone" / "encoders" / "mini.safetensors", trained)
    printed = run(inject)
    assert "by SHA-256" in printed and "Unknown" not in printed
    run(clone.replace("out.wav", "injected.wav"))
    assert (place / "injected.wav").exists()


def test_measuring_as_shown(place: Path, run: Callable[[str], str]) -> None:
    (shown,) = [block for block in blocks("") if "diagnose" in block]
    diagnose, evaluate = shown.strip().splitlines()
    assert "Verdict" in run(diagnose)
    report = json.loads((place / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["speakers"] == 2 and (place / "report" / "report.html").exists()
    run(evaluate)
    voices = json.loads((place / "voices" / "report.json").read_text(encoding="utf-8"))
    assert voices["scores"][0]["seconds"] == 5.0


def test_python_example(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = blocks("python")
    monkeypatch.chdir(place)
    exec(compile(example, "README.md", "exec"), {})
    sound(place / "morning.wav")


def test_make_demo(place: Path) -> None:
    """The recipe itself, in a shell; the environment is the one that runs the tests."""
    prefix = Path(sys.prefix)
    shutil.copy(ROOT / "Makefile", place)
    (place / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "reference.flac", place / "examples")
    assert "make demo " in README and 'make demo REF=my.wav TEXT="' in README
    printed = run_shell(f"make demo VENV={prefix} -o {prefix}/ready", place)
    assert "Similarity" in printed
    sound(place / "out" / "demo.wav")
    own = f'make -n demo VENV={prefix} -o {prefix}/ready REF=me.wav TEXT="My own." OUT=own.wav'
    assert 'clone "me.wav" "My own." -o "own.wav"' in run_shell(own, place)
