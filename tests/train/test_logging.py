"""What a run writes down can be read: JSON by every reader of JSON, TensorBoard by TensorBoard."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tests.train.full import config_of, full_training, train
from voxclone.rng import step_generator
from voxclone.train.logging import Log


def strict(path: Path) -> list[dict[str, Any]]:
    """The rows of a log, by a reader that takes nothing but JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def test_every_line_of_a_run_with_a_skipped_step_is_json(tmp_path: Path) -> None:
    task = full_training(config_of(run={"steps": 4}))
    task.poisoned = frozenset([1])
    train(tmp_path, task)
    rows = [row for row in strict(tmp_path / "log.jsonl") if "loss/total" in row]
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[0]["loss/total"] is None and rows[0]["other/grad_norm"] is None
    assert rows[0]["other/skipped"] == 1 and all(value is not None for value in rows[1].values())


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.scalars(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1 / 3})
    log.close()
    (row,) = strict(tmp_path / "log.jsonl")
    assert row["a"] is row["b"] is row["c"] is None and row["d"] == 0.333333


def read_board(folder: Path) -> Any:
    """Everything that was written for TensorBoard."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kinds = ("scalars", "images", "audio", "histograms")
    board = EventAccumulator(str(folder / "tensorboard"), dict.fromkeys(kinds, 0))
    board.Reload()
    return board


def bars(board: Any, name: str, at: int) -> dict[int, float]:
    """What a histogram counts, by code, each of which has a bar of its own."""
    found = board.Histograms(name)[at].histogram_value
    edges = zip(found.bucket_limit[:-1], found.bucket_limit[1:], strict=True)
    assert all(right - left == 1 and left % 1 == 0.5 for left, right in edges)
    counted = zip(found.bucket_limit, found.bucket, strict=True)
    return {int(limit - 0.5): count for limit, count in counted if count}


def test_every_validation_logs_audio_and_images(tmp_path: Path) -> None:
    """A recording and what became of it, their spectrograms, and the codes that are in use."""
    task, _ = train(tmp_path)
    with task.evaluation(), torch.no_grad():
        wave_BS = task.objective.draw_speech(step_generator(0, 0, stream=9)).wave_BS
        codes_BKT = task.objective.codec.encode(wave_BS)
    board = read_board(tmp_path)
    tags = board.Tags()
    assert set(tags["audio"]) == {"real/recording", "real/decoded"}
    assert set(tags["images"]) == {"real/recording_mel", "real/decoded_mel"}
    assert set(tags["histograms"]) == {"real/semantic_codes", "real/levels"}
    for kind, read in (("audio", board.Audio), ("images", board.Images),
                       ("histograms", board.Histograms)):  # fmt: skip
        for name in tags[kind]:
            assert [event.step for event in read(name)] == [3, 6], name
    last = board.Audio("real/recording")[-1]
    logged_S, rate = soundfile.read(io.BytesIO(last.encoded_audio_string), dtype="float32")
    assert rate == 24000 and np.abs(logged_S - wave_BS[0].numpy()).max() < 1e-4
    assert last.encoded_audio_string != board.Audio("real/decoded")[-1].encoded_audio_string
    semantic = {int(c): float((codes_BKT[:, 0] == c).sum()) for c in codes_BKT[:, 0].unique()}
    assert bars(board, "real/semantic_codes", -1) == semantic
    assert sum(bars(board, "real/levels", -1).values()) == codes_BKT[:, 1:].numel()


def test_a_spectrogram_shows_the_sound(tmp_path: Path) -> None:
    """Half a second of silence and half a second of a tone: a bright line, in its place."""
    log = Log(tmp_path)
    time_S = torch.arange(12000) / 24000
    tone_S = 0.5 * torch.sin(2 * torch.pi * 3000 * time_S)
    log.audio(7, "a/tone", torch.cat([torch.zeros(12000), tone_S]))
    log.close()
    board = read_board(tmp_path)
    import PIL.Image  # comes with TensorBoard

    (event,) = board.Images("a/tone_mel")
    picture_MT = np.asarray(PIL.Image.open(io.BytesIO(event.encoded_image_string)).convert("L"))
    assert picture_MT.shape == (128, 101) and event.step == 7
    assert picture_MT[:, :45].max() == 0 and picture_MT[:, 55:95].max(axis=0).min() > 200
    # On the Slaney scale 3 kHz are 31 of 51 mels from below, and the lowest band is the last row.
    (row,) = set(picture_MT[:, 55:95].argmax(axis=0).tolist())
    assert row == pytest.approx(127 - 128 * 31 / 51, abs=2)


def test_many_codes_share_bars_of_the_same_width(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.codes(1, "a/codes", torch.tensor([0, 31, 32, 8191, 8191, 8191]), 8192)
    log.close()
    found = read_board(tmp_path).Histograms("a/codes")[0].histogram_value
    assert set(np.diff(found.bucket_limit)) == {32.0}
    counts = [count for count in found.bucket if count]
    assert counts == [2, 1, 3] and found.bucket_limit[-1] == 8191.5
