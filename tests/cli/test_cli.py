"""The commands on a tiny release: what they print and write, and what they say of bad input."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.helpers.command import sentence
from tests.helpers.signals import speech
from tests.helpers.tiny_release import tiny_params, write_encoder, write_tiny_release


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_tiny_release(folder / "withheld")
    write_tiny_release(folder / "complete", with_encoder=True)
    write_encoder(folder / "encoder.safetensors", tiny_params())
    return folder


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    path = tmp_path / "reference.wav"
    soundfile.write(path, speech([1.2, 1.0], [0.2, 0.3, 0.3]), 24000)
    return path


def test_clone_speaks_in_the_voice_of_a_recording(releases, reference, tmp_path, command):
    out = tmp_path / "out.wav"
    code, printed, _ = command("clone", reference, "Hello there.", "-o", out,
        "--model", releases / "complete", "--seed", 3,
    )  # fmt: skip
    assert code == 0
    for word in ("Reference", "frames", "Similarity", "seed 3", "x real time", str(out)):
        assert word in printed.replace("\n", ""), word
    wave, rate = soundfile.read(out)
    assert rate == 24000 and len(wave) > 0
    again = tmp_path / "again.wav"
    command("clone", reference, "Hello there.", "-o", again, "--quiet",
        "--model", releases / "complete", "--seed", 3,
    )  # fmt: skip
    assert np.array_equal(wave, soundfile.read(again)[0])


def test_enroll_and_speak_are_the_halves_of_clone(releases, reference, tmp_path, command):
    voice, whole, half = tmp_path / "a.voice.safetensors", tmp_path / "1.wav", tmp_path / "2.wav"
    model = ("--model", releases / "withheld", "--encoder", releases / "encoder.safetensors")
    command("clone", reference, "One two.", "-o", whole, "--seed", 1, *model)
    code, printed, _ = command("enroll", reference, "--name", "anna", "--consent", "self",
        "--statement", "I am Anna.", "-o", voice, *model,
    )  # fmt: skip
    assert code == 0 and "I am Anna." in printed
    code, _, error = command("speak", "One two.", "--voice", voice, "-o", half, "--seed", 1,
        "--model", releases / "withheld",
    )  # fmt: skip
    assert code == 0, error
    assert np.array_equal(soundfile.read(whole)[0], soundfile.read(half)[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_an_error(releases, reference, tmp_path, command):
    asked = ["--model", releases / "complete", "--device", "cuda", "-o", tmp_path / "a.wav"]
    for words in (["clone", reference, "Hi."], ["speak", "Hi.", "--voice", "anna"]):
        code, _, err = command(*words, *asked)
        assert code == 1 and "no CUDA GPU" in err and not (tmp_path / "a.wav").exists()


def test_a_device_that_is_too_small_is_an_error(releases, tmp_path, command, monkeypatch):
    def full(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 6 GiB.\nMore.")

    monkeypatch.setattr("voxclone.tts.tts.TTS.load", full)
    code, _, err = command("speak", "Hi.", "--voice", "anna", "-o", tmp_path / "a.wav",
        "--model", releases / "complete",
    )  # fmt: skip
    assert code == 1 and "--device cpu" in err and "Tried to allocate 6 GiB.)" in err
    assert "Traceback" not in err and not (tmp_path / "a.wav").exists()


def test_speak_with_a_preset(releases, tmp_path, command):
    out = tmp_path / "preset.flac"
    code, printed, _ = command("speak", "One.", "--voice", "bert", "-o", out,
        "--model", releases / "withheld",
    )  # fmt: skip
    assert code == 0 and "seed" in printed and out.exists()


@pytest.mark.slow
def test_speech_by_weights_of_8_bits(releases, reference, tmp_path, command):
    def spoken(name, *arguments):
        code, _, err = command(*arguments, "-o", tmp_path / name, "--seed", 3, "--device", "cpu",
            "--model", releases / "complete",
        )  # fmt: skip
        assert code == 0, err
        return soundfile.read(tmp_path / name)[0]

    for words in (["speak", "One.", "--voice", "bert"], ["clone", reference, "One."]):
        plain, packed = spoken("a.wav", *words), spoken("b.wav", *words, "--weights", "int8")
        assert len(packed) and not np.array_equal(plain, packed)
    code, _, err = command("speak", "One.", "--voice", "bert", "-o", tmp_path / "c.wav",
        "--model", releases / "complete", "--weights", "int4",
    )  # fmt: skip
    assert code == 1 and "--weights int8" in sentence(err) and not (tmp_path / "c.wav").exists()


def test_inspect_shows_what_is_in_a_release(releases, command):
    code, printed, _ = command("inspect", "--model", releases / "withheld")
    assert code == 0
    assert "encoder: withheld" in printed and "anna (9)" in printed and "acoustic head" in printed
    code, printed, _ = command("inspect", "--model", releases / "complete", "--json")
    assert code == 0 and json.loads(printed)["encoder"] == "complete"


BAD_REFERENCES = {
    "missing": (None, 1),
    "a directory": ("directory", 1),
    "not audio": (b"this is no sound at all, but text", 1),
    "empty file": (b"", 1),
    "no samples": (np.zeros(0), 1),
    "silence": (np.zeros(48000), 1),
    "under a second": (speech([0.4], [0.1, 0.1]), 1),
    "not finite": (np.full(48000, np.nan), 1),
}


@pytest.mark.parametrize("name", BAD_REFERENCES)
def test_bad_references_get_a_sentence(name, releases, tmp_path, command):
    content, expected = BAD_REFERENCES[name]
    path, out = tmp_path / "bad.wav", tmp_path / "out.wav"
    if isinstance(content, str):
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        soundfile.write(path, content, 24000, subtype="FLOAT")
    code, _, error = command("clone", path, "Hello.", "-o", out, "--model", releases / "complete")
    assert code == expected
    sentence(error)
    assert not out.exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("seconds", "rate", "word"), [(34.0, 24000, "30"), (4.0, 8000, "8"), (2.5, 24000, "3 s")]
)
def test_odd_references_are_used_with_a_warning(seconds, rate, word, releases, tmp_path, command):
    path, out = tmp_path / "odd.wav", tmp_path / "out.wav"
    phrases = [1.5] * int(seconds / 2)
    soundfile.write(path, speech(phrases, [0.3] * (len(phrases) + 1), rate), rate)
    code, printed, error = command(
        "clone", path, "Hi.", "-o", out, "--model", releases / "complete"
    )
    assert code == 0, error
    assert word in printed and out.exists()


@pytest.mark.parametrize(
    ("text", "word"), [("", "empty"), ("  \n ", "empty"), ("?!", "empty"), ("a" * 5000, "4096")]
)
def test_bad_texts_are_refused_before_anything_is_loaded(text, word, reference, tmp_path, command):
    out = tmp_path / "out.wav"
    code, _, error = command("clone", reference, text, "-o", out, "--model", tmp_path / "none")
    assert code == 2 and word in sentence(error) and not out.exists()


def test_unknown_voice_names_the_nearest(releases, tmp_path, command):
    code, _, error = command("speak", "Hi.", "--voice", "ana", "-o", tmp_path / "x.wav",
        "--model", releases / "withheld",
    )  # fmt: skip
    assert code == 1 and "'anna'" in sentence(error)


def test_release_without_encoder_names_the_ways_to_get_one(releases, reference, tmp_path, command):
    code, _, error = command("clone", reference, "Hi.", "-o", tmp_path / "x.wav",
        "--model", releases / "withheld",
    )  # fmt: skip
    assert code == 1
    for way in ("train encoder", "--encoder", "preset"):
        assert way in sentence(error)


def test_unusable_outputs_are_refused_first(releases, reference, tmp_path, command):
    model = ("--model", releases / "complete")
    for out in (tmp_path / "nowhere" / "x.wav", tmp_path):
        code, _, error = command("clone", reference, "Hi.", "-o", out, *model)
        assert code == 2
        sentence(error)
    code, _, error = command("clone", reference, "Hi.", "-o", tmp_path / "x.txt", *model)
    assert code == 2 and ".wav" in sentence(error) and not (tmp_path / "x.txt").exists()
    if os.geteuid() != 0:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        code, _, error = command("clone", reference, "Hi.", "-o", closed / "x.wav", *model)
        assert code == 2 and "read-only" in sentence(error)


def damage(folder: Path, kind: str) -> None:
    params, tensors = folder / "params.json", folder / "consolidated.safetensors"
    if kind == "truncated":
        tensors.write_bytes(tensors.read_bytes()[:-1000])
    elif kind == "no params":
        params.unlink()
    elif kind == "no tensors":
        tensors.unlink()
    else:
        value = json.loads(params.read_text())
        if kind == "misshapen":
            value["hidden_dim"] += 1
        elif kind == "missing tensor":
            value["n_layers"] += 1
        elif kind == "contradictory":
            value["multimodal"]["audio_model_args"]["semantic_codebook_size"] += 1
        params.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "kind",
    ["truncated", "no params", "no tensors", "misshapen", "missing tensor", "contradictory"],
)
def test_damaged_releases_get_a_sentence(kind, releases, tmp_path, command):
    folder, out = tmp_path / "release", tmp_path / "x.wav"
    shutil.copytree(releases / "withheld", folder)
    damage(folder, kind)
    code, _, error = command("speak", "Hi.", "--voice", "anna", "-o", out, "--model", folder)
    assert code == 1
    sentence(error)
    assert not out.exists()


def test_unknown_options_are_usage_errors(command):
    assert command("clone", "--nonsense")[0] == 2
    for name, given, now in (
        ("refine", "--from", "--init"), ("inject", "--accept-ill", "--force"),
        ("export", "--to=x", "--runtime"),
    ):  # fmt: skip
        code, _, error = command(name, "a.wav", given)
        assert code == 2 and f"is now {now}." in sentence(error)
    code, _, error = command("clone", "a.wav", "--seconds", "3")  # it has neither new name
    assert code == 2 and "No such option" in error and "is now" not in error
