"""The command `refine`: what it prints and writes, and what it says of bad input."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.helpers.command import sentence
from tests.helpers.signals import speech
from tests.helpers.tiny_release import write_tiny_release
from voxclone.voice.file import Voice, read_metadata

CONSENT = ("--consent", "self", "--statement", "I am Anna and I agree.")
QUICK = ("--steps", 2, "--set", "evaluate_every=1", "--set", "predict_every=1")


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli-refine")
    write_tiny_release(folder / "complete", with_encoder=True)
    write_tiny_release(folder / "withheld")
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "a.wav"
    soundfile.write(path, speech([2.2, 2.2], [0.2, 0.3, 0.3]), 24000)
    return path


def test_a_refined_voice_is_a_voice(releases, clip, tmp_path, command):
    out, run = tmp_path / "ada.voice.safetensors", tmp_path / "run"
    model = ("--model", releases / "complete")
    code, printed, error = command(
        "refine", clip, "-o", out, *CONSENT, *QUICK, "--checkpoints", run, *model
    )
    assert code == 0, error
    for word in ("Evaluated  after 0 steps: gain", ", kept.", "Refined the codes", "I am Anna"):
        assert word in printed, word
    metadata = read_metadata(out)
    assert metadata.name == "ada" and metadata.consent.kind == "self"
    assert metadata.enrollment_id is None
    stored = metadata.preprocessing["refinement"]
    assert stored["init"] == "encoder" and stored["settings"]["steps"] == 2
    assert [each["step"] for each in stored["evaluations"]] == [0, 1, 2]
    best = max(stored["evaluations"], key=lambda each: each["gain"])
    assert stored["kept"] == best["step"]
    code, printed, _ = command("voices", "show", out)
    assert code == 0 and "Refined the codes in 2 steps from the encoder's codes" in printed
    wave = tmp_path / "out.wav"
    code, _, error = command("speak", "One.", "--voice", out, "-o", wave, *model)
    assert code == 0 and wave.exists(), error
    code, _, error = command(
        "refine", clip, "-o", out, *CONSENT, *QUICK, "--checkpoints", run, *model
    )
    assert code == 1 and "--resume" in sentence(error)
    again = (*CONSENT, *QUICK, "--checkpoints", run, "--resume", *model)
    assert command("refine", clip, "-o", tmp_path / "b.voice.safetensors", *again)[0] == 0
    assert (Voice.load(tmp_path / "b.voice.safetensors").codes_KT == Voice.load(out).codes_KT).all()


def test_a_recording_from_standard_input(releases, clip, tmp_path, command, monkeypatch):
    out, model = tmp_path / "ada.voice.safetensors", ("--model", releases / "complete")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(clip.read_bytes())))
    code, printed, error = command("refine", "-", "-o", out, *CONSENT, *QUICK, *model)
    assert code == 0 and "standard input" in printed, error
    same = tmp_path / "same.voice.safetensors"
    assert command("refine", clip, "-o", same, *CONSENT, *QUICK, *model)[0] == 0
    assert (Voice.load(out).codes_KT == Voice.load(same).codes_KT).all()
    code, _, error = command("refine", "-", "-o", out, *CONSENT, *QUICK, *model)
    assert code == 1 and "standard input is empty" in sentence(error)


@pytest.mark.parametrize("init", ["nothing", "bert", "file"])
def test_codes_start_without_an_encoder(init, releases, clip, tmp_path, command):
    out = tmp_path / "b.voice.safetensors"
    start: object = init
    if init == "file":
        start = tmp_path / "a.voice.safetensors"
        made = ("--model", releases / "complete", *CONSENT)
        assert command("enroll", clip, "--name", "a", "-o", start, *made)[0] == 0
    code, _, error = command(
        "refine", clip, "-o", out, "--init", start, *CONSENT, *QUICK, "--model",
        releases / "withheld", "--quiet",
    )  # fmt: skip
    assert code == 0, error
    metadata = read_metadata(out)
    if init == "file":
        assert metadata.encoder_hash == read_metadata(start).encoder_hash
        first = metadata.preprocessing["refinement"]["evaluations"][0]
        assert first["step"] == 0
    else:
        assert metadata.encoder_hash == "none"
    assert metadata.preprocessing["refinement"]["init"] == ("a" if init == "file" else init)


BAD = [
    (("--set", "weights.speeker=1"), 2, "did you mean 'speaker'"),
    (("--select-by", "ear"), 2, "select_by"),
    (("--select-by", "similarity", "--set", "weights.speaker=1"), 2, "cannot select"),
    (("--steps", "-1"), 2, "steps"),
    (("--resume",), 2, "--checkpoints"),
    (("--init", "nobody"), 1, "no voice 'nobody'"),
    (("--init", "nothing", "--select-by", "gain"), 2, "an encoder is needed"),
    (("--init", "nothing", "--set", "weights.speaker=1"), 2, "cannot select"),
    (("--set", "weights.mel=inf"), 2, "weights.mel"),
    ((), 1, "no codec encoder"),
]


@pytest.mark.parametrize(("given", "code", "words"), BAD)
def test_bad_input_gets_a_sentence(given, code, words, releases, clip, tmp_path, command):
    out = tmp_path / "b.voice.safetensors"
    found, _, error = command(
        "refine", clip, "-o", out, *CONSENT, "--model", releases / "withheld", *given
    )
    assert found == code and words in sentence(error) and not out.exists()


@pytest.mark.parametrize(
    "given", [(), CONSENT[:2], CONSENT[2:], ("--consent", "unstated", *CONSENT[2:])]
)
def test_nothing_is_kept_without_consent(given, releases, clip, tmp_path, command):
    out = tmp_path / "b.voice.safetensors"
    code, _, error = command("refine", clip, "-o", out, "--model", releases / "complete", *given)
    assert code == 2 and "--" in sentence(error) and not out.exists()


def test_too_little_speech_is_an_error(releases, tmp_path, command):
    path, out = tmp_path / "short.wav", tmp_path / "b.voice.safetensors"
    soundfile.write(path, speech([2.0], [0.2, 0.3]), 24000)
    code, _, error = command("refine", path, "-o", out, *CONSENT, "--model", releases / "complete")
    assert code == 1 and "longer recording" in sentence(error) and not out.exists()


def test_a_name_that_is_taken_is_not_taken_over(releases, clip, tmp_path, command):
    kept = ("--voices", tmp_path, "--model", releases / "complete", *CONSENT)
    assert command("enroll", clip, "--name", "ada", *kept)[0] == 0
    code, _, error = command("refine", clip, "--name", "ada", *kept, *QUICK)
    assert code == 2 and "--replace" in sentence(error)
    code, _, error = command("refine", clip, *kept)
    assert code == 2 and "--name" in sentence(error)


def test_a_half_without_sound_is_an_error(releases, tmp_path, command):
    path, out = tmp_path / "half.wav", tmp_path / "b.voice.safetensors"
    wave = np.concatenate([speech([2.2, 1.2], [0.2, 0.3, 0.3]), np.zeros(4 * 24000)])
    soundfile.write(path, wave, 24000)
    code, _, error = command(
        "refine", path, "-o", out, *CONSENT, "--model", releases / "complete", "--without", "trim"
    )
    assert code == 1 and "no sound after" in sentence(error) and not out.exists()


def test_a_folder_for_checkpoints_that_cannot_be(releases, clip, tmp_path, command):
    out, text = tmp_path / "b.voice.safetensors", tmp_path / "text"
    text.write_text("mine")
    for run in (text, text / "deeper"):
        code, _, error = command(
            "refine",
            clip,
            "-o",
            out,
            *CONSENT,
            *QUICK,
            "--model",
            releases / "complete",
            "--checkpoints",
            run,
        )
        assert code == 2 and "--checkpoints" in sentence(error) and not out.exists()


def test_too_many_recordings_are_refused(releases, clip, tmp_path, command):
    out = tmp_path / "b.voice.safetensors"
    code, _, error = command(
        "refine", *[clip] * 33, "-o", out, *CONSENT, "--model", releases / "complete"
    )
    assert code == 2 and "32 can be used" in sentence(error)


def test_a_broken_encoder_is_not_passed_over(releases, clip, tmp_path, command, monkeypatch):
    broken, out = tmp_path / "e.safetensors", tmp_path / "b.voice.safetensors"
    broken.write_bytes(b"no encoder")
    monkeypatch.setattr("voxclone.release.encoder_file.packaged_encoders", lambda: [broken])
    code, _, error = command(
        "refine", clip, "-o", out, "--init", "nothing", *CONSENT, *QUICK, "--model",
        releases / "withheld",
    )  # fmt: skip
    assert code == 1 and "e.safetensors" in sentence(error) and not out.exists()


def test_a_damaged_checkpoint_is_skipped(releases, clip, tmp_path, command):
    run, model = tmp_path / "run", ("--model", releases / "complete")
    quick = (*QUICK, "--set", "save_every=1", "--checkpoints", run, *model, *CONSENT)
    assert command("refine", clip, "-o", tmp_path / "a.voice.safetensors", *quick)[0] == 0
    (run / "step-0000002" / "values.json").write_text("{}")
    out = tmp_path / "b.voice.safetensors"
    code, printed, error = command("refine", clip, "-o", out, *quick, "--resume")
    assert code == 0 and out.exists(), error
    assert "step-0000002" in printed and "Skipped" in printed
