"""A signal stops a training while clips are labeled, which takes long."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny_speech import TinySpeech
from tests.train.tiny import CPU, QUIET, config_of, with_model
from voxclone.train import pseudo_labels
from voxclone.train.encoder import EncoderTraining, build
from voxclone.train.loop import Outcome, fit
from voxclone.train.signals import catch_signals, stop_requested


def labeling(speech_model: TinySpeech, labels: Path) -> EncoderTraining:
    config = config_of(
        run={"steps": 4, "save_every": 100, "validate_every": 100}, weights={"pseudo_label": 0.5},
        pseudo_labels={"label_steps": [2], "clips": 5, "batch": 2},
    )  # fmt: skip
    return build(config, with_model(speech_model, labels), CPU)


def gone_through(speech_model: TinySpeech, folder: Path) -> tuple[EncoderTraining, Outcome]:
    """Go on with a training in a folder, to its end or to the signal."""
    task = labeling(speech_model, folder / "labels")
    run = task.config.run
    return task, fit(task, run, folder, resume=True, config={}, console=QUIET)


def test_labeling_is_left_at_once_and_made_again(
    speech_model: TinySpeech, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, _ = gone_through(speech_model, tmp_path / "whole")
    clips: list[int] = []
    label_clip = pseudo_labels.label_clip

    def label(*given: Any) -> pseudo_labels.Label:
        clips.append(given[4])
        if len(clips) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return label_clip(*given)

    monkeypatch.setattr(pseudo_labels, "label_clip", label)
    first, outcome = gone_through(speech_model, tmp_path / "parts")
    assert (outcome.reason, outcome.step, len(clips)) == ("interrupted", 2, 2)
    saved = [path.name for path in (tmp_path / "parts" / "checkpoints").iterdir()]
    assert saved == ["step-0000002"] and not list((tmp_path / "parts").glob("labels/*"))
    assert first.objective.codec.encoder is first.encoder and first.encoder.training
    second, outcome = gone_through(speech_model, tmp_path / "parts")
    assert (outcome.reason, len(clips)) == ("done", 2 + 5) and clips[:2] == clips[2:4]
    ours, theirs = whole.state.tensors(), second.state.tensors()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    name = "labels/labels-0000002.safetensors"
    read = [(tmp_path / part / name).read_bytes() for part in ("whole", "parts")]
    assert read[0] == read[1]


def test_a_signal_is_noted_and_a_second_one_stops_who_is_alone() -> None:
    handlers = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    with catch_signals(alone=False):
        assert not stop_requested()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop_requested()
    assert not stop_requested()
    with pytest.raises(KeyboardInterrupt), catch_signals(alone=True):
        signal.raise_signal(signal.SIGINT)
        assert stop_requested()
        signal.raise_signal(signal.SIGTERM)
    assert not stop_requested()
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == handlers
