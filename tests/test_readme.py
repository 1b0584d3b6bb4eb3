"""Every command of the README is run as it stands there, on the mini release."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = (
    "--set run.steps=2 --set pairs.minutes=0 --set frames=4 "
    "--set weights.speaker_contrastive=0"  # two speakers are too few to be told apart
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


def run(script: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "2", "HOME": str(folder)}
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


def test_shell_commands(place: Path) -> None:
    printed = "".join(run(block, place) for block in blocks("bash"))
    for word in (
        "Reference",
        "Voice",
        "Speech",
        "Likeness",
        "seed 1",
        "encoder: withheld",
        "bit for bit",
    ):
        assert word in printed, word
    for name in ("out.wav", "preset.wav"):
        sound(place / name)
    kept = place / ".local" / "share" / "voxclone" / "voices" / "anna.voice.safetensors"
    assert kept.exists() and "consent: self" in printed
    assert "Verdict    21 of 21 voices would be heard as meant." in printed
    assert (place / "voxtral-anna" / "voice_embedding" / "anna.pt").exists()


def test_training_as_shown_but_short(place: Path) -> None:
    (shown,) = [block for block in blocks("") if "train encoder" in block]
    train, clone = shown.strip().splitlines()
    run(f"{train} {SHORT}", place)
    run(clone.replace("out.wav", "trained.wav"), place)
    assert (place / "trained.wav").exists()


def test_refining_as_shown_but_short(place: Path) -> None:
    (shown,) = [block for block in blocks("") if "voxclone refine" in block]
    printed = run(f"{shown.strip()} --steps 2", place)
    assert "Judged" in printed and (place / "refined.voice.safetensors").exists()


def test_injecting_as_shown(place: Path) -> None:
    (shown,) = [block for block in blocks("") if "voxclone inject" in block]
    inject, clone = shown.strip().splitlines()
    trained = place / "runs" / "encoder" / "encoder.safetensors"
    if not trained.exists():  # where the training above was not run
        trained.parent.mkdir(parents=True)
        shutil.copy(ROOT / "src" / "voxclone" / "encoders" / "mini.safetensors", trained)
    printed = run(inject, place)
    assert "by SHA-256" in printed and "Unknown" not in printed
    run(clone.replace("out.wav", "injected.wav"), place)
    assert (place / "injected.wav").exists()


def test_measuring_as_shown(place: Path) -> None:
    (shown,) = [block for block in blocks("") if "diagnose" in block]
    diagnose, evaluate = shown.strip().splitlines()
    printed = run(f"{diagnose} || test $? = 3", place)
    assert "Verdict" in printed
    report = json.loads((place / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["speakers"] == 2 and (place / "report" / "report.html").exists()
    run(evaluate, place)
    voices = json.loads((place / "voices" / "report.json").read_text(encoding="utf-8"))
    assert voices["scores"][0]["seconds"] == 5.0


def test_python_example(place: Path) -> None:
    (example,) = blocks("python")
    (place / "example.py").write_text(example, encoding="utf-8")
    run("python example.py", place)
    sound(place / "morning.wav")


def test_make_demo(place: Path) -> None:
    """The recipe itself; the environment is the one that runs the tests."""
    prefix = Path(sys.prefix)
    shutil.copy(ROOT / "Makefile", place)
    (place / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "reference.flac", place / "examples")
    assert "make demo " in README and 'make demo REF=my.wav TEXT="' in README
    printed = run(f"make demo VENV={prefix} -o {prefix}/ready", place)
    assert "Likeness" in printed
    sound(place / "out" / "demo.wav")
    own = f'make demo VENV={prefix} -o {prefix}/ready REF=me.wav TEXT="My own words." OUT=own.wav'
    run(own, place)
    sound(place / "own.wav")
