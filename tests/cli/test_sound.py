"""Sound from and to pipes, hints, reports of speech, and parts spoken again."""

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.helpers.command import Command, sentence
from tests.helpers.media import encode_media
from tests.helpers.signals import speech
from tests.helpers.tiny_release import write_tiny_release
from voxclone.release.encoder_file import packaged_encoders
from voxclone.release.release import Release
from voxclone.tts.tts import TTS

TEXT = "One two.\n\nThree. Four five"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("sound") / "complete"
    return "--model", write_tiny_release(folder, with_encoder=True)


def wav() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, speech([1.2, 1.0], [0.2, 0.3, 0.3]), 24000, format="WAV")
    return buffer.getvalue()


def test_clone_from_and_to_a_pipe(model, command: Command, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(wav())))
    piped = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(piped, write_through=True))
    code, _, error = command("clone", "-", "One.", "-o", "-", "--seed", 3, *model)
    assert code == 0 and "standard input" in error and "seed 3" in error
    samples, rate = soundfile.read(io.BytesIO(piped.getvalue()))
    assert rate == 24000 and len(samples) > 0


def test_a_redirected_recording_is_an_input(model, tmp_path, command: Command) -> None:
    """`clone - TEXT -o me.wav < me.wav`: the output would replace the recording."""
    path = tmp_path / "me.wav"
    path.write_bytes(wav())
    with redirected(0, path, os.O_RDONLY):
        code, _, error = command("clone", "-", "One.", "-o", path, *model)
    assert code == 2 and "is an input, too" in sentence(error) and path.read_bytes() == wav()


@contextmanager
def redirected(stream: int, path: Path, flags: int) -> Iterator[None]:
    """Within, a standard stream of this process is a file, as the shell opens it."""
    before, opened = os.dup(stream), os.open(path, flags)
    os.dup2(opened, stream)
    os.close(opened)
    try:
        yield
    finally:
        os.dup2(before, stream)
        os.close(before)


@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_APPEND, os.O_RDWR])  # >> and 1<>
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("me.wav", "clone me.wav One."),
        ("me.wav", "clone - One."),
        ("me.wav", "speak - --voice bert"),
        ("me.wav", "speak --text-file me.wav --voice bert"),
        ("me.wav", "clone other.wav One. --encoder me.wav"),
        ("me.wav", "speak One. --voice bert --model ."),
        ("anna.voice.safetensors", "speak One. --voice anna.voice.safetensors"),
        ("anna.voice.safetensors", "speak One. --voice anna --voices ."),
    ],
)
def test_an_input_that_standard_output_is_redirected_to_is_kept(
    name: str, words: str, flags: int, tmp_path: Path, command: Command, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_bytes(wav())
    with redirected(0, path, os.O_RDONLY), redirected(1, path, flags):
        code, _, error = command(*words.split(), "-o", "-")
    assert code == 2 and path.read_bytes() == wav()
    assert sentence(error).startswith("voxclone: Standard output ")


@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_APPEND, os.O_RDWR])  # >> and 1<>
@pytest.mark.parametrize(
    "words",
    [
        "speak One. --voice bert --model complete --adapter held",
        "speak One. --voice bert --model linked",
        "clone me.wav One. --model complete",
        "clone me.wav One. --model withheld --encoder encoder.safetensors",
    ],
)
@pytest.mark.parametrize("name", ["tekken.json", "voice_embedding/bert.pt"])
def test_a_file_of_a_release_that_has_another_name_is_kept(
    name: str, words: str, flags: int, model, tmp_path: Path, command: Command, monkeypatch
) -> None:
    """Standard output is a hard link to a file of the release, or what a link there points to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me.wav").write_bytes(wav())
    shutil.copytree(model[1], "complete")
    shutil.copytree(model[1], "withheld")
    (tmp_path / "held").mkdir()
    os.link(tmp_path / "complete" / name, tmp_path / "held" / "adapter.json")
    shutil.copy("complete/consolidated.safetensors", "encoder.safetensors")
    shutil.copytree(model[1], "linked")
    folder = "withheld" if "withheld" in words else "complete"
    (tmp_path / "linked" / name).unlink()
    (tmp_path / "linked" / name).symlink_to(tmp_path / "complete" / name)
    path = tmp_path / "other.bin"
    os.link(tmp_path / folder / name, path)
    before = path.read_bytes()
    with redirected(1, path, flags):
        code, _, error = command(*words.split(), "-o", "-")
    assert code == 2 and path.read_bytes() == before
    assert sentence(error).startswith("voxclone: Standard output lies in")


@pytest.mark.parametrize("kind", ["release", "encoder"])
def test_what_is_packaged_is_an_input(
    kind: str, tmp_path: Path, command: Command, monkeypatch, mini_release: Release
) -> None:
    """Without `--encoder`, and by `--model mini`, files of the package are read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me.wav").write_bytes(wav())
    encoder = tmp_path / "encoder.safetensors"
    shutil.copy(packaged_encoders()[0], encoder)
    release = tmp_path / "packaged"
    shutil.copytree(mini_release.path, release)
    monkeypatch.setattr("voxclone.release.release.mini_release", lambda: release)
    monkeypatch.setattr("voxclone.release.encoder_file.packaged_encoders", lambda: [encoder])
    source = encoder if kind == "encoder" else release / "tekken.json"
    path = tmp_path / "other.bin"
    os.link(source, path)
    size = path.stat().st_size
    with redirected(1, path, os.O_WRONLY | os.O_APPEND):
        code, _, error = command("clone", "me.wav", "One.", "-o", "-")
    assert code == 2 and path.stat().st_size == size
    assert sentence(error).startswith("voxclone: Standard output")


def test_two_outputs_are_two_files(model, tmp_path: Path, command: Command, monkeypatch) -> None:
    """`-o - --report r.json > r.json` would lose the sound, and so would a hard link's."""
    monkeypatch.chdir(tmp_path)
    words = ["speak", "One.", "--voice", "bert", "-o", "-", *model]
    report, other = tmp_path / "r.json", tmp_path / "other.json"
    report.touch()
    os.link(report, other)
    for name in ("r.json", "./r.json", other):
        with redirected(1, report, os.O_WRONLY):
            code, _, error = command(*words, "--report", name)
        assert code == 2 and "is another output, too" in sentence(error)
    assert report.stat().st_size == 0


def test_a_report_may_be_what_standard_input_was(
    model, tmp_path: Path, command: Command, monkeypatch
) -> None:
    """The command reads no standard input, so `-o - --report r.json < r.json > y.wav` loses
    nothing."""
    report, out = tmp_path / "r.json", tmp_path / "y.wav"
    report.touch()
    out.touch()
    words = ["speak", "One.", "--voice", "bert", "-o", "-", "--report", report, *model]
    with redirected(0, report, os.O_RDONLY), redirected(1, out, os.O_RDWR):
        monkeypatch.setattr(sys, "stdout", os.fdopen(os.dup(1), "w"))
        code, _, error = command(*words)
    assert code == 0, error
    assert soundfile.info(out).frames > 0 and json.loads(report.read_text(encoding="utf-8"))


def test_a_text_from_a_pipe_with_control_characters(
    model, tmp_path, command: Command, monkeypatch
) -> None:
    given = b"O\0ne.\x07"
    for name in ("-", None):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        begin, end = os.pipe()
        os.write(end, given)
        os.close(end)
        source, report = name or f"/dev/fd/{begin}", tmp_path / "parts.json"
        out = ["-o", tmp_path / "a.wav", "--report", report]
        code, _, error = command("speak", "--text-file", source, "--voice", "bert", *out, *model)
        os.close(begin)
        assert code == 0, error
        assert json.loads(report.read_text(encoding="utf-8"))["parts"][0]["text"] == "One."


def test_a_terminal_is_no_place_for_sound(model, command: Command, monkeypatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, _, error = command("speak", "One.", "--voice", "bert", "-o", "-", *model)
    assert code == 2 and "terminal" in sentence(error)
    code, _, error = command("clone", "-", "-", "-o", "a.wav", *model)
    assert code == 2 and "cannot be both" in sentence(error)


def test_a_recording_of_a_phone(model, tmp_path, command: Command) -> None:
    path, out = tmp_path / "New Recording.m4a", tmp_path / "out.wav"
    path.write_bytes(encode_media("ipod", "aac", speech([2.0], [0.2, 0.3])))
    code, printed, error = command("clone", path, "One.", "-o", out, *model)
    assert code == 0 and "New Recording.m4a" in printed, error


def test_voices_and_recordings_hint_at_each_other(model, tmp_path, command: Command) -> None:
    out = tmp_path / "out.wav"
    code, _, error = command("clone", "a.voice.safetensors", "One.", "-o", out, *model)
    assert code == 2 and "voxclone speak" in sentence(error)
    code, _, error = command("speak", "One.", "--voice", "me.m4a", "-o", out, *model)
    assert code == 2 and "voxclone clone" in sentence(error)
    code, _, error = command("clone", "https://host/me.wav", "One.", "-o", out, *model)
    assert code == 1 and "download the file first" in sentence(error)
    code, _, error = command("speak", "-5 degrees", "--voice", "bert", "-o", out, *model)
    assert code == 2 and "after `--`: `-- '-5 degrees'`" in sentence(error)
    code, _, error = command("speak", "--voice", "bert", "-o", out, *model, "--", "-5 degrees")
    assert code == 0, error


@pytest.mark.parametrize(
    "words",
    [
        "data pairs --minutes -1 -o out",
        "speak One. --voice bert -o x.wav --seed -5",
        "data pairs --minutes 1 -o out -5",
    ],
)
def test_a_wrong_number_is_not_taken_for_a_text(words: str, command: Command) -> None:
    code, _, error = command(*words.split())
    assert code == 2 and "text" not in sentence(error)


def test_the_content_of_a_damaged_tokenizer_is_not_printed(
    model, tmp_path: Path, command: Command
) -> None:
    folder = tmp_path / "release"
    shutil.copytree(model[1], folder)
    values = json.loads((folder / "tekken.json").read_text(encoding="utf-8"))
    for token in values["special_tokens"]:
        token["token_str"] = "<same>"
    (folder / "tekken.json").write_text(json.dumps(values), encoding="utf-8")
    out = tmp_path / "x.wav"
    code, _, error = command("speak", "One.", "--voice", "bert", "-o", out, "--model", folder)
    assert code == 1 and "tekken.json cannot be used" in sentence(error)
    assert len(error.replace(str(folder), "")) < 400


def test_markup_is_warned_of(model, tmp_path, command: Command) -> None:
    _, printed, _ = command(
        "speak", "<b>One.</b>", "--voice", "bert", "-o", tmp_path / "a.wav", *model
    )
    assert "spoken as written" in printed


def test_the_version(command: Command) -> None:
    code, printed, _ = command("--version")
    assert code == 0 and printed.startswith("voxclone ")


def test_stored_voices_are_below_xdg_data_home(tmp_path, monkeypatch) -> None:
    import importlib

    from voxclone.voice import store

    monkeypatch.undo()  # of the tests' own folder
    importlib.reload(store)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert store.default_folder() == tmp_path / "voxclone" / "voices"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert store.default_folder().is_absolute()


def test_parts_are_reported_and_spoken_again(
    model, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TTS, "part_characters", lambda self, frames: 12)
    out, report = tmp_path / "out.wav", tmp_path / "parts.json"
    words: list[Any] = ["speak", TEXT, "--voice", "bert", "-o", out, "--report", report, *model]
    code, printed, error = command(*words, "--seed", 5)
    assert code == 0 and str(report) in printed.replace("\n", ""), error
    first, before = json.loads(report.read_text(encoding="utf-8")), soundfile.read(out)[0]
    assert first["schema"] == "voxclone.speech/1" and first["voice"] == "bert"
    parts = first["parts"]
    assert [part["text"] for part in parts] == ["One two.", "Three.", "Four five"]
    assert [part["seed"] for part in parts] == [5, 6, 7]
    assert parts[1]["start"] == pytest.approx(parts[0]["seconds"] + 0.6, abs=0.002)
    assert all(isinstance(part["truncated"], bool) for part in parts)
    assert all(-1 <= part["similarity"] <= 1 for part in parts)

    code, _, error = command(*words, "--seed", 50, "--redo", "2")
    assert code == 0, error
    again, after = json.loads(report.read_text(encoding="utf-8")), soundfile.read(out)[0]
    assert [part["seed"] for part in again["parts"]] == [5, 51, 7]
    assert again["parts"][0]["codes"] == parts[0]["codes"]
    assert again["parts"][1]["codes"] != parts[1]["codes"]
    same = round(parts[0]["seconds"] * 24000)
    assert np.abs(before[:same] - after[:same]).max() < 0.01

    for arguments, word in (
        (["--redo", "4"], "no part 4"),
        (["--redo", "x"], "such as 3,7"),
        (["--redo", "1", "--voice", "anna"], "another voice"),
    ):
        changed = [*words]
        if "--voice" in arguments:
            changed[3], arguments = "anna", arguments[:2]
        code, _, error = command(*changed, *arguments)
        assert code == 2 and word in sentence(error), error
    changed = [*words]
    changed[1] = "Another text."
    assert "another text" in sentence(command(*changed, "--redo", "1")[2])
    report.unlink()
    assert "--report" in sentence(command(*words, "--redo", "1")[2])


@pytest.mark.parametrize("codes", ["!", "AAA=", "/////w=="])
def test_damaged_reports_get_a_sentence(
    codes: str, model, tmp_path: Path, command: Command
) -> None:
    out, report = tmp_path / "out.wav", tmp_path / "parts.json"
    words = ["speak", "One. Two", "--voice", "bert", "-o", out, "--report", report, *model]
    assert command(*words)[0] == 0
    values = json.loads(report.read_text(encoding="utf-8"))
    values["parts"] = values["parts"] * 2
    for part, text in zip(values["parts"], ("One. Two", "x"), strict=True):
        part["codes"], part["text"] = codes, text
    report.write_text(json.dumps(values), encoding="utf-8")
    code, _, error = command(*words, "--redo", "2")
    assert code in (1, 2), error
    sentence(error)


def test_an_unread_kind_of_file_is_named(tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "in" / "ada"
    folder.mkdir(parents=True)
    for number in range(2):
        soundfile.write(folder / f"{number}.wav", speech([2.0 + number / 9], [0.2, 0.3]), 24000)
    (folder / "2.m4a").write_bytes(encode_media("ipod", "aac", speech([2.5], [0.2, 0.3])))
    (folder / "0.txt").write_text("One.")
    for name in ("a.m4p", "b.m4p", "c.zip", ".hidden"):
        (folder / name).write_bytes(b"x")
    code, printed, error = command("data", "prepare", tmp_path / "in", "-o", tmp_path / "o")
    assert code == 0 and "3 clips of 1 speakers" in printed, error + printed
    assert "3 files, not named as sounds: 2 .m4p, 1 .zip." in printed


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, model, command: Command) -> None:
    path = tmp_path / "encoder.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    reference = tmp_path / "me.wav"
    reference.write_bytes(wav())
    code, _, error = command(
        "clone", reference, "One.", "-o", tmp_path / "a.wav", "--encoder", path, *model
    )
    assert code == 1 and "git lfs pull" in sentence(error)
