"""Every command of the README is run as it stands there, on the mini release."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import soundfile

from tests.helpers.command import Command
from tests.helpers.tiny_release import write_tiny_release
from tests.recover.speech import write_recordings
from tests.recover.test_recover import SHORT
from tests.serve.process import serve
from voxclone.doctor import Finding

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SPEAKERS = ("anna", "bob", "carl", "dora", "ed", "fay")


def blocks(language: str) -> list[str]:
    """Fenced blocks of a language, in order."""
    parts = re.split(r"^```(.*)$\n", README, flags=re.MULTILINE)
    return [body for tag, body in zip(parts[1::4], parts[2::4], strict=True) if tag == language]


def commands(block: str) -> list[list[str]]:
    """The arguments of each `voxclone` command of a block."""
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert all(line[0] == "voxclone" for line in lines), block
    return [line[1:] for line in lines]


def block_with(text: str) -> list[list[str]]:
    (block,) = [block for block in blocks("") if text in block]
    return commands(block)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording, and recordings of six speakers with transcripts, as a user might
    have it."""
    folder = tmp_path_factory.mktemp("readme")
    samples, rate = soundfile.read(ROOT / "examples" / "reference.flac")
    soundfile.write(folder / "me.wav", samples, rate)
    write_recordings(folder / "my" / "recordings", dict.fromkeys(SPEAKERS, 9))
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("voxclone.voice.store.default_folder", lambda: folder / "voices")


def check_sound(path: Path) -> None:
    samples, rate = soundfile.read(path)
    assert rate == 24000 and len(samples) > 0.3 * rate
    assert 0.005 < np.sqrt(np.mean(samples**2)) < 0.5


def test_the_server_as_shown(folder: Path) -> None:
    """With a free port, and a folder of voices of its own."""
    assert block_with("voxclone serve") == [["serve"]]
    with serve("mini", folder / "served") as server, urlopen(server.url, timeout=30) as page:
        assert b"<title>voxclone</title>" in page.read()


def test_voices_as_shown(folder: Path, command: Command) -> None:
    printed = ""
    for arguments in [line for block in blocks("bash") for line in commands(block)]:
        code, out, error = command(*arguments)
        assert code == 0, (arguments, error)
        printed += out
    for word in ("Reference", "seed 1", "consent: self", "bit for bit", "21 of 21 voices"):
        assert word in printed, word
    for name in ("out.wav", "anna.wav", "preset.wav"):
        check_sound(folder / name)
    assert (folder / "voices" / "anna.voice.safetensors").exists()
    assert (folder / "voxtral-anna" / "voice_embedding" / "anna.pt").exists()


def test_refining_as_shown_but_short(folder: Path, command: Command) -> None:
    (arguments,) = block_with("voxclone refine")
    code, _, error = command(*arguments, "--steps", "2")
    assert code == 0, error
    assert (folder / "refined.voice.safetensors").exists()


def test_the_path_of_an_owner_as_shown_but_short(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny release of random weights stands in for the real one. Its encoder of two steps fails
    checks, so that the release is made by the command that is then printed."""
    monkeypatch.setattr("voxclone.doctor._hub", lambda: Finding("hub", True, "not asked"))
    write_tiny_release(folder / "path" / "to" / "Voxtral-4B-TTS-2603")
    for arguments in block_with("voxclone recover"):
        verb, short = arguments[0], "--dry-run" in arguments
        code, out, error = command(*arguments, *(SHORT if verb == "recover" else []))
        assert code == (3 if verb == "recover" and not short else 0), (arguments, out, error)
        if code == 3:
            (inject,) = re.findall(r"voxclone (inject .*)", out)
            assert command(*shlex.split(inject))[0] == 0
    page = (folder / "runs" / "voxtral" / "report" / "index.html").read_text(encoding="utf-8")
    assert "What to do next" in page and page.count("<audio") >= 6
    assert (folder / "out.wav").exists()


def test_python_example(folder: Path) -> None:
    (example,) = blocks("python")
    (folder / "example.py").write_text(example, encoding="utf-8")
    runpy.run_path("example.py")
    check_sound(folder / "morning.wav")


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "examples/README.md"]:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            assert link.startswith("http") or (page.parent / link).exists(), (page, link)
        titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
        for anchor in re.findall(r"\]\(#([^)]+)\)", text):
            assert anchor in anchors, (page, anchor)


def test_make_demo(folder: Path) -> None:
    """The recipe itself; the environment is the one that runs the tests."""
    prefix = Path(sys.prefix)
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "reference.flac", folder / "examples")
    assert "make demo " in README and 'make demo REF=my.wav TEXT="' in README
    make = ["make", "demo", f"VENV={prefix}", "-o", f"{prefix}/ready"]
    subprocess.run(make, cwd=folder, check=True, timeout=280)
    check_sound(folder / "out" / "demo.wav")
    own = [*make, "REF=me.wav", "TEXT=My own words.", "OUT=own.wav"]
    subprocess.run(own, cwd=folder, check=True, timeout=280)
    check_sound(folder / "own.wav")
