"""What a recovery cannot do is one sentence, and nothing that was done is lost."""

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.command import Command, sentence
from tests.helpers.tiny_release import write_relative, write_tiny_release
from tests.recover.speech import CLIPS, write_prepared, write_recordings
from tests.recover.test_recover import SHORT
from voxclone.recover import calibration, planning, stages
from voxclone.recover.run import WORK
from voxclone.recover.texts import failed_match
from voxclone.train import encoder

Recover = Callable[..., tuple[int, str, str]]


@pytest.fixture
def recover(model: Path, speech: Path, tmp_path: Path, command: Command) -> Recover:
    """The command on the tiny release with a short training; options may be replaced."""

    def run(*more: object, **options: object) -> tuple[int, str, str]:
        given = {"model": model, "speech": speech, "out": tmp_path / "run"} | options
        named = [part for name, value in given.items() for part in (f"--{name}", value)]
        return command("recover", *named, *SHORT, *more)

    return run


def test_a_folder_without_recordings(recover: Recover, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no sound")
    code, _, error = recover(speech=tmp_path / "empty")
    assert code == 1 and "holds no recording" in sentence(error)
    assert not (tmp_path / "run").exists()


def test_speech_that_is_not_there(recover: Recover, tmp_path: Path) -> None:
    code, _, error = recover(speech=tmp_path / "none.jsonl")
    assert code == 1 and "none.jsonl" in sentence(error)
    assert not (tmp_path / "run").exists()


def test_a_corpus_is_checked_before_anything_is_planned(
    recover: Recover, speech: Path, tmp_path: Path
) -> None:
    (tmp_path / "corpus").mkdir()
    code, out, error = recover(speech=tmp_path / "corpus", corpus="nosuch")
    assert code == 2 and not out and "--corpus takes commonvoice" in sentence(error)
    code, out, error = recover(corpus="vctk")
    assert code == 2 and not out and "is a manifest: leave out --corpus" in sentence(error)
    code, out, error = recover(speech=tmp_path / "nowhere", corpus="vctk")
    assert code == 1 and not out and "there is no such file" in sentence(error)


def test_a_line_that_is_no_clip(recover: Recover, speech: Path, tmp_path: Path) -> None:
    bad = speech.with_name("bad.jsonl")
    bad.write_text(speech.read_text() + '{"id": "x"}\n')
    code, _, error = recover(speech=bad)
    assert code == 1 and f"Line {sum(CLIPS.values()) + 1}" in sentence(error)


def test_one_speaker(recover: Recover, tmp_path: Path) -> None:
    alone = write_prepared(tmp_path / "one", {"ada": 40}, {})
    code, out, _ = recover(speech=alone)
    assert code == 3 and "Expect     One speaker" in out
    assert "The gate of `validate` failed. one speaker: An encoder of one voice" in out
    assert "Mend the speech, and give the same command again." in out
    assert (tmp_path / "run" / "report" / "index.html").is_file()


def test_five_minutes_of_speech(recover: Recover, tmp_path: Path) -> None:
    little = write_prepared(tmp_path / "little", {"ada": 5, "ben": 5, "cid": 5, "dot": 5}, {})
    code, out, _ = recover(speech=little)
    assert code == 3 and "minutes to train on are too few: 10 are the least, for a try" in out
    assert "little speech: An encoder learns these clips by heart" in out
    assert "train:" not in out


def test_a_folder_of_two_speakers_is_prepared_and_nobody_is_set_aside(
    recover: Recover, tmp_path: Path
) -> None:
    folder = write_recordings(tmp_path / "recordings", {"ada": 22, "ben": 22})
    code, out, error = recover("--until", "validate", speech=folder)
    assert code == 0, (out, error)
    assert "prepare: done in" in out and "in 44 clips of 2 speakers" in out
    code, out, _ = recover("--dry-run", speech=folder)
    assert "clean clips at 24 kHz (kept)" in out
    (folder / "ada" / "0.txt").write_text("another text")
    code, out, _ = recover("--until", "prepare", speech=folder)
    assert code == 0 and "prepare: recordings has changed (prepare-" in out


def test_texts_of_other_recordings() -> None:
    texts = [f"{word} word" for word in ("one", "seven", "apple", "river", "stone", "cloud")]
    waves = [torch.full((4,), float(number)) for number in range(len(texts))]
    transcripts = dict(enumerate(texts))
    assert failed_match(texts, waves, lambda wave_S: transcripts[int(wave_S[0])]) is None
    shifted = [texts[-1], *texts[:-1]]
    found = failed_match(shifted, waves, lambda wave_S: transcripts[int(wave_S[0])])
    assert found is not None and found.startswith("Texts do not match their recordings")


def test_a_gate_of_texts_ends_the_run(recover: Recover, monkeypatch: pytest.MonkeyPatch) -> None:
    from voxclone.recover.texts import Mismatch

    monkeypatch.setattr(stages, "failed_texts", lambda path: Mismatch("Texts do not match.", True))
    code, out, _ = recover()
    assert code == 3 and "The gate of `validate` failed. Texts do not match." in out


def test_a_release_with_an_encoder(recover: Recover, tmp_path: Path) -> None:
    whole = write_tiny_release(tmp_path / "whole", with_encoder=True)
    code, _, error = recover(model=whole)
    assert code == 1 and "has an encoder already: clone with it" in sentence(error)
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_release(recover: Recover, model: Path, tmp_path: Path) -> None:
    assert recover("--until", "validate")[0] == 0
    changed = "mm_audio_embeddings.tok_embeddings.weight"
    other = write_relative(tmp_path / "other", model, (changed,))
    code, _, error = recover(model=other)
    assert code == 1 and f"of another release ({model})" in sentence(error)
    shutil.copytree(model, tmp_path / "moved")
    code, out, _ = recover("--until", "validate", model=tmp_path / "moved")
    assert code == 0 and "validate: kept" in out


def test_a_folder_with_something_else(recover: Recover, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    code, _, error = recover()
    assert code == 1 and "holds something else already" in sentence(error)


def test_a_stage_that_there_is_not(recover: Recover) -> None:
    code, _, error = recover("--until", "bake")
    assert code == 2 and "--until takes prepare, validate" in sentence(error)


def test_a_disk_that_is_too_small(recover: Recover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "free_room", lambda out: 1000)
    code, _, error = recover()
    assert code == 1 and "but the disk has 0.0 GB left" in sentence(error)


@pytest.mark.parametrize("too_small", ["by a step", "by its size"])
def test_a_card_that_is_too_small_names_the_values(
    too_small: str, recover: Recover, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(self: object, step: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    if too_small == "by a step":
        monkeypatch.setattr(encoder.EncoderTraining, "train_step", no_memory)
    else:
        monkeypatch.setattr(planning, "total_memory", lambda device: 10**6)
        monkeypatch.setattr(calibration, "training_seconds", lambda *given: 60.0)
    code, _, error = recover("--set", "run.steps=60", "--dry-run")
    assert code == 1
    for name in ("run.micro_batches", "real_batch", "pair_batch", "frames"):
        assert name in sentence(error)


def full_disk(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Within this stage, no file can grow beyond two kilobytes."""
    was = WORK[stage]

    def make(*given: Any) -> Any:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
        try:
            return was.make(*given)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, handler)

    monkeypatch.setitem(WORK, stage, type(was)(was.inputs, make))


def starved(
    stage: str, recover: Recover, monkeypatch: pytest.MonkeyPatch, *more: object, **options: object
) -> str:
    """What is printed when the command is given again, up to a stage that a full disk stopped."""
    with monkeypatch.context() as patch:
        full_disk(patch, stage)
        code, out, error = recover(*more, "--until", stage, **options)
    assert code == 1, (stage, out)
    found = sentence(error)
    # A limit of files stands in for the disk; writers say one of these.
    reasons = ("larger than the system allows", "disk is full", "File too large")
    assert any(each in found for each in reasons), found
    code, out, error = recover(*more, "--until", stage, **options)
    assert code in (0, 3), (stage, error)
    return out


def test_a_full_disk_before_there_is_an_encoder_loses_nothing(
    recover: Recover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny release ends no utterance by itself, so codes for its pairs are drawn."""
    codes_KT = torch.randint(0, 20, (7, 200), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("voxclone.data.pairs._speak_batch", lambda *given: [codes_KT] * 20)
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # limits are of this process alone
    folder = write_recordings(tmp_path / "recordings", dict.fromkeys("abcdef", 9))
    for stage in ("prepare", "validate", "pairs", "train"):
        out = starved(stage, recover, monkeypatch, "--set", "pairs.minutes=0.01", speech=folder)
        assert f"{stage}: it was interrupted and continues" in out
    assert len(list((tmp_path / "run").glob("*/stage.json"))) == 4


@pytest.mark.slow
def test_a_full_disk_after_the_training_loses_nothing(
    recover: Recover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in ("diagnose", "evaluate"):
        out = starved(stage, recover, monkeypatch)
        assert f"{stage}: it was interrupted and continues" in out
    for path in (tmp_path / "run").glob("*/stage.json"):  # checks of random weights fail
        values = json.loads(path.read_text())
        values["result"]["failed"] = None
        path.write_text(json.dumps(values))
    out = starved("inject", recover, monkeypatch)
    assert "inject: it was interrupted and continues" in out
    assert (tmp_path / "run" / "release" / "params.json").is_file()


def test_a_signal_within_the_training_loses_no_step(
    recover: Recover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    six = ("--set", "run.steps=6", "--set", "run.save_every=2", "--until", "train")
    assert recover(*six, out=tmp_path / "whole")[0] == 0
    step = encoder.EncoderTraining.train_step

    def stopped(self: encoder.EncoderTraining, number: int) -> Any:
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(encoder.EncoderTraining, "train_step", stopped)
        code, out, _ = recover(*six)
    assert code == 5 and "Give the same command to continue." in out
    code, out, _ = recover(*six)
    assert code == 0 and "train: it was interrupted and continues" in out
    ends = [
        load_file(next((tmp_path / name).glob("train-*/run/encoder.safetensors")))
        for name in ("whole", "run")
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
