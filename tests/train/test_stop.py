"""A training that is told to stop while clips are labelled, which takes long, stops there."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.mini_release.speech import SpeechTask
from tests.train.test_tasks import labelled
from tests.train.tiny import FAST, QUIET
from voxclone.train import channel
from voxclone.train.channel import ChannelSettings
from voxclone.train.encoder import EncoderTask
from voxclone.train.encoder_settings import EncoderTraining, EncoderWeights
from voxclone.train.run import Outcome, RunSettings, fit
from voxclone.train.stop import called, listening


def told_task(speech_task: SpeechTask, labels: Path) -> EncoderTask:
    codec, model = labelled(speech_task)
    subset = speech_task.train.corpus.subset(lambda clip: True)
    settings = EncoderTraining(
        run=RunSettings(steps=4, save_every=100, validate_every=100, autocast=False),
        optimiser=FAST,
        weights=EncoderWeights(told=0.5),
        pair_batch=2, real_batch=2, told_batch=2, frames=6, real_from=0, cycle_from=99,
        channel=ChannelSettings(at=(2,), clips=5),
    )  # fmt: skip
    codes_KT = torch.ones(1 + codec.config.acoustic_dim, 9, dtype=torch.long)
    return EncoderTask.create(
        settings, codec, [codes_KT], {"p": codes_KT}, subset.corpus, subset, None, model, labels
    )


def gone_through(speech_task: SpeechTask, folder: Path) -> tuple[EncoderTask, Outcome]:
    """Go on with a training in a folder, to its end or to the signal."""
    task = told_task(speech_task, folder / "labels")
    run = task.settings.run
    return task, fit(task, run, folder, resume=True, config={}, console=QUIET)


def test_labelling_is_left_at_once_and_made_again(
    speech_task: SpeechTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, _ = gone_through(speech_task, tmp_path / "whole")
    clips: list[int] = []
    label_clip = channel.label_clip

    def label(*given: Any) -> channel.Label:
        clips.append(given[4])
        if len(clips) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return label_clip(*given)

    monkeypatch.setattr(channel, "label_clip", label)
    first, outcome = gone_through(speech_task, tmp_path / "parts")
    assert (outcome.reason, outcome.step, len(clips)) == ("interrupted", 2, 2)
    saved = [path.name for path in (tmp_path / "parts" / "checkpoints").iterdir()]
    assert saved == ["step-0000002"] and not list((tmp_path / "parts").glob("labels/*"))
    assert first.codec.encoder is first.state.modules["encoder"] and first.codec.encoder.training
    second, outcome = gone_through(speech_task, tmp_path / "parts")
    assert (outcome.reason, len(clips)) == ("done", 2 + 5) and clips[:2] == clips[2:4]
    ours, theirs = whole.state.tensors(), second.state.tensors()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    name = "labels/labels-0000002.safetensors"
    read = [(tmp_path / part / name).read_bytes() for part in ("whole", "parts")]
    assert read[0] == read[1]


def test_a_signal_is_noted_and_a_second_one_stops_who_is_alone() -> None:
    handlers = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    with listening(alone=False):
        assert not called()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert called()
    assert not called()
    with pytest.raises(KeyboardInterrupt), listening(alone=True):
        signal.raise_signal(signal.SIGINT)
        assert called()
        signal.raise_signal(signal.SIGTERM)
    assert not called()
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == handlers
