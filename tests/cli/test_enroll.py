"""Commands that make, keep and use voices: what they print and write, and what they refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.helpers.command import sentence
from tests.helpers.signals import speech
from tests.helpers.tiny_release import write_relative, write_tiny_release
from voxclone.cli import enroll
from voxclone.release.encoder_file import CODEBOOK_TENSORS
from voxclone.spec import TABLE
from voxclone.voice.file import Voice, read_metadata

CONSENT = ("--consent", "self", "--statement", "I am Anna and I agree.")


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli-enroll")
    first = write_tiny_release(folder / "complete", with_encoder=True)
    write_relative(folder / "table", first, (TABLE,))
    write_relative(folder / "book", first, (CODEBOOK_TENSORS[1],))
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / "a.wav", folder / "b.wav", folder / "c.wav"]
    soundfile.write(paths[0], speech([2.0, 1.5], [0.2, 0.3, 0.3]), 24000)
    soundfile.write(paths[1], speech([2.5], [0.3, 0.3]), 24000)
    stereo_SC = np.stack([speech([2.0], [0.9, 0.4], 16000)] * 2, axis=1)
    soundfile.write(paths[2], stereo_SC, 16000)
    return paths


def test_a_stored_voice_is_found_by_its_name(releases, clips, tmp_path, command):
    kept = ("--voices", tmp_path / "voices")
    model = ("--model", releases / "complete")
    code, printed, error = command("enroll", *clips, "--name", "ada", *CONSENT, *kept, *model)
    assert code == 0, error
    for word in ("a.wav: ", "b.wav: ", "c.wav: ", "Resampled", "Averaged", "Joined 3 parts",
                 "Similarity", "% clipped", "I am Anna", "ada.voice.safetensors"):  # fmt: skip
        assert word in printed, word
    out = tmp_path / "out.wav"
    code, _, error = command("speak", "One.", "--voice", "ada", "-o", out, *kept, *model)
    assert code == 0 and out.exists(), error
    code, printed, _ = command("voices", "list", *kept)
    assert code == 0 and printed.startswith("ada") and "consent: self" in printed
    code, printed, _ = command("voices", "list", "--json", *kept)
    assert [each["name"] for each in json.loads(printed)] == ["ada"]
    code, printed, _ = command("voices", "show", "ada", *kept)
    assert code == 0 and "I am Anna and I agree." in printed and "Joined 3 parts" in printed
    code, printed, _ = command("voices", "show", "ada", "--json", *kept)
    assert json.loads(printed)["metadata"]["consent"]["kind"] == "self"
    assert command("voices", "remove", "ada", *kept)[0] == 0
    assert list((tmp_path / "voices").iterdir()) == []
    code, _, error = command("speak", "One.", "--voice", "ada", "-o", out, *kept, *model)
    assert code == 1 and "no voice 'ada'" in sentence(error)
    assert "No voice is stored" in command("voices", "list", *kept)[1]


def test_the_same_enrollment_is_made_once(releases, clips, tmp_path, command, monkeypatch):
    kept = ("--voices", tmp_path / "voices", "--model", releases / "complete")
    enroll = ("enroll", *clips[:2], *CONSENT, *kept)
    assert command(*enroll, "--name", "ada")[0] == 0
    path = tmp_path / "voices" / "ada.voice.safetensors"
    before = path.read_bytes()

    def never(*_: object) -> None:
        raise AssertionError("it was made again")

    monkeypatch.setattr("voxclone.cli.enroll._make", never)
    code, printed, _ = command(*enroll, "--name", "ada")
    assert code == 0 and "Known" in printed and "Kept" in printed and "Joined 2" in printed
    assert path.read_bytes() == before
    copies = [clips[0].rename(clips[0].with_name("renamed.wav")), clips[1]]
    other = ("enroll", *copies, "--consent", "written", "--statement", "A letter.", *kept)
    report = tmp_path / "report.json"
    code, printed, error = command(*other, "--name", "eva", "--report", report)
    copies[0].rename(clips[0])
    assert code == 0 and "Known" in printed, error
    first, second = Voice.load(path), Voice.load(path.with_name("eva.voice.safetensors"))
    assert second.metadata.name == "eva" and second.metadata.consent.statement == "A letter."
    assert (first.codes_KT == second.codes_KT).all()
    written = json.loads(report.read_text())
    assert written["schema"] == "voxclone.enrollment/2" and written["known"] == str(path)
    assert [part["source"] for part in written["reference"]["parts"]] == ["a.wav", "b.wav"]
    with pytest.raises(AssertionError, match="made again"):
        command(*enroll, "--name", "ida", "--without", "level")
    command("voices", "remove", "ada", "eva", *kept[:2])
    with pytest.raises(AssertionError, match="made again"):  # nothing was kept elsewhere
        command(*enroll, "--name", "ada")


def test_a_name_that_is_taken_is_not_taken_over(releases, clips, tmp_path, command):
    kept = ("--voices", tmp_path, "--model", releases / "complete")
    assert command("enroll", clips[0], "--name", "ada", *CONSENT, *kept)[0] == 0
    path = tmp_path / "ada.voice.safetensors"
    before = path.read_bytes()
    code, _, error = command("enroll", clips[1], "--name", "ada", *CONSENT, *kept)
    assert code == 2 and "--replace" in sentence(error)
    other = ("--consent", "synthetic", "--statement", "It is not a person's.")
    code, _, error = command("enroll", clips[0], "--name", "ada", *other, *kept)
    assert code == 2 and "consent" in sentence(error) and path.read_bytes() == before
    code, _, _ = command("enroll", clips[0], "--name", "ada", *other, "--replace", *kept)
    assert code == 0 and read_metadata(path).consent.kind == "synthetic"
    code, _, error = command("enroll", clips[0], "--name", "bert", *CONSENT, *kept)
    assert code == 2 and "'bert' is a preset" in sentence(error)
    os.rename(path, tmp_path / "bert.voice.safetensors")
    code, _, error = command("speak", "One.", "--voice", "bert", "-o", tmp_path / "x.wav", *kept)
    assert code == 2 and "preset" in sentence(error) and not (tmp_path / "x.wav").exists()


def test_of_two_enrollments_of_one_name_at_once_one_is_refused(
    releases, clips, tmp_path, command, monkeypatch
):
    """The other one begins and ends while the codes of the first are made."""
    kept = ("--name", "ada", *CONSENT, "--voices", tmp_path, "--model", releases / "complete")
    path = tmp_path / "ada.voice.safetensors"
    others: list[bytes] = []

    def make_later(*given):
        if not others:
            line = [sys.executable, "-m", "voxclone", "enroll", clips[1], *kept]
            subprocess.run(list(map(str, line)), check=True, capture_output=True, timeout=120)
            others.append(path.read_bytes())
        return make(*given)

    make = enroll._make
    monkeypatch.setattr(enroll, "_make", make_later)
    code, _, error = command("enroll", clips[0], *kept)
    assert code == 1 and "already" in sentence(error)
    assert path.read_bytes() == others[0] and list(tmp_path.iterdir()) == [path]
    code, _, error = command("enroll", clips[0], *kept, "--replace")
    assert code == 0 and path.read_bytes() != others[0], error


CONSENTS = [
    (), ("--consent", "self"), ("--statement", "I agree."), ("--consent", "unstated", *CONSENT[2:]),
    ("--consent", "yes", *CONSENT[2:]), ("--consent", "self", "--statement", "  "),
]  # fmt: skip


@pytest.mark.parametrize("given", CONSENTS)
def test_nothing_is_kept_without_consent(given, releases, clips, tmp_path, command):
    code, _, error = command("enroll", clips[0], "--name", "ada", *given, "--voices",
        tmp_path / "voices", "--model", releases / "complete",
    )  # fmt: skip
    assert code == 2 and "--" in sentence(error) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (("--name", "Anna"), 2, "a-z"),
        (("--name", "../anna"), 2, "a-z"),
        (("--name", "x", "--without", "levle"), 2, "did you mean 'level'"),
        (("--name", "x", "--high-pass", "80"), 2, "50"),
        (("--name", "x", "--level", "3"), 2, "level_dbfs"),
        (("--name", "x", "--best-of", "0"), 2, "best_of"),
        (("--name", "x", "--select-by", "luck"), 2, "select_by"),
        (("--name", "x", "--max-seconds", "1"), 2, "seconds"),
        (("--name", "x", "-o", "nowhere/x.voice.safetensors"), 2, "no directory"),
        (("--name", "x", "--report", "nowhere/x.json"), 2, "no directory"),
        (("--name", "x", "--without", "resample"), 1, "16000 Hz"),
        (("--name", "x", "--without", "mix"), 1, "2 channels"),
    ],
)
def test_bad_options_get_a_sentence(options, code, word, releases, clips, tmp_path, command):
    found, _, error = command("enroll", clips[2], *options, *CONSENT, "--voices", tmp_path / "v",
        "--model", releases / "complete",
    )  # fmt: skip
    assert found == code and word in sentence(error)
    assert not list(tmp_path.glob("v/*"))


def test_actions_are_printed_and_left_out(releases, clips, tmp_path, command):
    """The recording has an offset, rumble, silence around it, and stops in its middle."""
    path, voice = tmp_path / "odd.wav", tmp_path / "odd.voice.safetensors"
    wave_S = speech([2.0, 2.0, 1.0], [1.0, 0.5, 0.5, 0.0])
    time_S = np.arange(len(wave_S)) / 24000
    soundfile.write(path, wave_S + 0.05 + 0.05 * np.sin(2 * np.pi * 12 * time_S), 24000)
    words = {
        "offset": "constant offset",
        "high-pass": "rumble below 40 Hz",
        "trim": "before the speech",
        "pause": "ends in the pause",
        "level": "the level by",
    }
    common = (
        "enroll",
        path,
        "--name",
        "odd",
        *CONSENT,
        "-o",
        voice,
        "--model",
        releases / "complete",
    )
    printed = command(*common)[1]
    assert all(word in printed for word in words.values()), printed
    for step, word in words.items():
        if step != "offset":  # without it, the offset is rumble
            assert word not in command(*common, "--without", step)[1], step
    cropped = command(*common, "--max-seconds", 3)[1]
    assert "as more than 3 s cannot be used" in cropped
    assert "cannot be used" not in command(*common, "--max-seconds", 3, "--without", "crop")[1]
    two = ("enroll", *clips[:2], *common[2:])
    assert "Joined" in command(*two)[1]
    assert "Used a.wav alone" in command(*two, "--without", "join")[1]


def test_voices_move_to_another_table_and_not_to_another_book(
    releases, clips, tmp_path, command
):  # fmt: skip
    voice, moved = tmp_path / "a.voice.safetensors", tmp_path / "b.voice.safetensors"
    out = tmp_path / "x.wav"
    model = ("--model", releases / "complete")
    assert command("enroll", clips[0], "--name", "ada", *CONSENT, "-o", voice, *model)[0] == 0
    speak = ("speak", "One.", "--voice", voice, "-o", out, "--seed", 1)
    code, printed, error = command(*speak, "--model", releases / "table")
    assert code == 0 and "embedded again" in printed, error
    first = soundfile.read(out)[0]
    code, printed, _ = command(
        "voices", "update", voice, "-o", moved, "--model", releases / "table"
    )
    assert code == 0 and "with the embedding for" in printed
    command(
        "speak", "One.", "--voice", moved, "-o", out, "--seed", 1, "--model", releases / "table"
    )
    assert np.array_equal(first, soundfile.read(out)[0])
    for command_line in (speak, ("voices", "update", voice)):
        code, _, error = command(*command_line, "--model", releases / "book")
        assert code == 1 and "another codebook" in sentence(error)


def test_files_that_are_no_voices_get_a_sentence(releases, tmp_path, command):
    path = tmp_path / "x.voice.safetensors"
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch harm'\ntR.")
    for line in (("voices", "show", path), ("voices", "update", path),
                 ("speak", "Hi.", "--voice", path, "-o", tmp_path / "x.wav",
                  "--model", releases / "complete")):  # fmt: skip
        code, _, error = command(*line)
        assert code == 1 and "no voice file" in sentence(error)
    code, printed, _ = command("voices", "list", "--voices", tmp_path)
    assert code == 0 and "cannot be used" in printed
    code, _, error = command("voices", "remove", "../x", "--voices", tmp_path)
    assert code == 1 and "cannot be a voice's" in sentence(error) and path.exists()
