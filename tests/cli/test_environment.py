"""Terminals, locales, names and texts as users have them: no traceback, no junk, no markup."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from tests.helpers.command import Command, sentence
from tests.helpers.signals import speech
from voxclone.audio.files import read_recording
from voxclone.cli.common import open_console, print_line
from voxclone.cli.report import print_failed_check
from voxclone.cli.strict import _decoded
from voxclone.errors import UsageError
from voxclone.evaluate.cache import default_folder as default_cache
from voxclone.tts.limits import check_cfg, check_seed
from voxclone.voice.store import default_folder

SPEAK = ("--voice", "en_male_1", "-o", "x.wav")
LATIN1 = os.fsdecode(b"caf\xe9")


def run_command(
    *arguments: str, given: bytes | None = None, **environment: str
) -> tuple[int, str, str]:
    """The command in a process of its own; without `given`, standard input is closed."""
    line = "import sys; from voxclone.cli import main; sys.argv[0] = 'voxclone'; main()"
    command = [sys.executable, "-c", line, *arguments]
    if given is None:
        command = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
    done = subprocess.run(
        command, input=given, capture_output=True, env=os.environ | environment, timeout=60
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("Grüße".encode("cp1252"), "Standard input is not in UTF-8"),
        ("Hello".encode("utf-16"), "Standard input is in UTF-16"),
        ("Hello".encode("utf-16-le"), "NUL"),
        (b"", "empty"),
    ],
)
def test_standard_input_that_is_no_text(
    given: bytes, words: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    code, _, error = command("speak", "-", *SPEAK)
    assert code == 2 and words in sentence(error)


def test_standard_input_that_is_closed() -> None:
    code, _, error = run_command("speak", "-", *SPEAK, given=None)
    assert code == 2 and "Standard input is closed" in sentence(error)


def test_characters_that_a_terminal_cannot_show_are_replaced() -> None:
    code, _, error = run_command("inspect", "--model", "Größe", PYTHONIOENCODING="ascii")
    assert code == 1 and "Gr??e" in sentence(error)
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code, _, error = run_command("speak", "Größe.", "--voice", "nobody", "-o", "x.wav", **locale)
    assert code == 1 and "There is no voice" in sentence(error)


def test_a_text_that_the_locale_did_not_decode_is_decoded() -> None:
    assert _decoded(os.fsdecode("Grüße".encode()), "text") == "Grüße"
    assert _decoded("".join(f"{chr(0xDC00 + byte)}" for byte in "ü".encode()), "text") == "ü"
    with pytest.raises(UsageError, match="not in UTF-8"):
        _decoded(LATIN1, "text")


def test_without_a_home_directory_folders_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(UsageError, match="--voices"):
        default_folder()
    with pytest.raises(ValueError, match="set HOME"):
        default_cache()


def test_a_file_name_that_is_not_utf8(tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "speech" / LATIN1
    folder.mkdir(parents=True)
    for number in range(2):
        wave_S = speech([0.9, 1.1 + number], [0.1, 0.2, 0.2])
        soundfile.write(os.fsencode(folder / f"{LATIN1}{number}.wav"), wave_S, 24000)
    assert read_recording(folder / f"{LATIN1}0.wav").source == "caf\\xe90.wav"
    out = tmp_path / "out"
    code, printed, error = command(
        "data", "prepare", tmp_path / "speech", "-o", out, "--jobs", 1, "--set", "min_snr_db=0"
    )
    assert code == 0 and "Kept       2 clips" in printed, error
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert {row["speaker"] for row in rows} == {"caf\\xe9"}
    assert command("data", "validate", out / "manifest.jsonl")[0] == 3
    code, _, error = command("clone", tmp_path / f"{LATIN1}.wav", "Hi.", "-o", tmp_path / "x.wav")
    assert code == 1 and "There is no file" in sentence(error)


@pytest.mark.parametrize("text", ["Hi [/b]", "Hi [bold red]", "[x]take.wav", ":smile: [link=x]y"])
def test_texts_are_no_markup(
    text: str, command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    console = open_console(False)
    print_line(console, "Text", text)
    print_line(console, "Text", text, warning=True)
    print_failed_check({"name": text, "meaning": text, "measured": text, "remedy": text}, console)
    assert capsys.readouterr().out.count(text) == 6
    code, _, error = command("clone", text, "Hi.", "-o", tmp_path / "x.wav")
    assert code == 1 and text in sentence(error)


def test_a_name_changes_no_terminal() -> None:
    shown = io.StringIO()
    console = Console(file=shown, markup=False, emoji=False)
    print_line(console, "Wrote", "a\x1b[31mred\nline\u202etxt")
    assert shown.getvalue() == "Wrote      a?[31mred line?txt\n"


def test_seeds_and_guidance_have_limits() -> None:
    for seed in (-1, 2**63, 2**64):
        with pytest.raises(UsageError, match="The seed is"):
            check_seed(seed)
    for cfg in (float("nan"), float("inf"), -0.1, 1e30):
        with pytest.raises(UsageError, match="cfg"):
            check_cfg(cfg)
    assert check_seed(0) == 0 and check_cfg(1.2) == 1.2 and np.isfinite(check_cfg(20))
