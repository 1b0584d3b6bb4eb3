"""What a run shows while it goes."""

import io
import math
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from voxclone.config import load_settings
from voxclone.train import loop
from voxclone.train.checkpoint import TrainState
from voxclone.train.encoder_config import EncoderConfig, packaged_config
from voxclone.train.logging import SECONDS, Log, progress_bar
from voxclone.train.loop import RunSettings, fit

METRICS = {
    "preset/semantic": 0.31, "preset/exact": 0.41, "preset/within_one": 0.81, "real/mel": 0.42,
    "real/codes_in_use": 153.0, "real/frames": 800.0, "real/largest_share": 0.0512,
    "real/extreme": 0.0234,
}  # fmt: skip


def metrics_of_ours() -> dict[str, float]:
    """What a step of our recipe logs, with every loss in use."""
    config = load_settings(EncoderConfig, packaged_config("voxtral_4b"), [])
    weights = config.weights.model_dump()
    names = [f"loss/{name}" for name, weight in weights.items() if weight]
    assert {"loss/mel", "loss/pseudo_label", "loss/bridge"} <= set(names)
    metrics = dict.fromkeys([*names, "loss/speaker_accuracy", "loss/total"], 12.3456)
    return metrics | {
        "other/grad_norm": 1.2345, "speed/audio_per_second": 85.32,
        "speed/steps_per_second": 1.333, "other/skipped": 0.0,
    }  # fmt: skip


class Idle:
    """A training that does nothing and has every metric."""

    def __init__(self) -> None:
        self.state = TrainState({})

    def train_step(self, step: int) -> dict[str, torch.Tensor]:
        names = [name for name in metrics_of_ours() if name.startswith("loss/")]
        return dict.fromkeys(names, torch.tensor(12.3456)) | {SECONDS: torch.tensor(64.0)}

    def validate(self, step: int, log: Log) -> dict[str, float]:
        return METRICS


def shown(width: int, metrics: dict[str, float], folder: str = "ours") -> str:
    """The bar of a run that does a step in two seconds, on a terminal of so many columns."""
    now = [0.0]
    console = Console(
        width=width, force_terminal=True, color_system=None, file=io.StringIO(),
        get_time=lambda: now[0],
    )  # fmt: skip
    progress = progress_bar(console)
    bar = progress.add_task(folder, total=30000, completed=12000, metrics={})
    for step in range(12001, 12006):
        now[0] += 2
        progress.update(bar, completed=step, metrics=metrics)
    lines = console.render_lines(progress.get_renderable(), pad=False)
    (line,) = ["".join(segment.text for segment in each) for each in lines]
    assert len(line) <= width
    return line.rstrip()


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("folder", ["ours", "recovery-of-the-large-release-again"])
def test_step_time_left_and_speed_are_there_at_every_width(width: int, folder: str) -> None:
    line = shown(width, metrics_of_ours() | METRICS, folder)
    assert line.startswith(folder[:8])
    for wanted in ("━", "12005/30000", "9:59:50", "audio 85.3 s/s", "total 12.3"):
        assert wanted in line, line
    assert re.search(r" \w+ [0-9.]+$", line) and "…" not in line[16:]  # whole numbers alone


@pytest.mark.parametrize("width", [80, 120])
def test_a_run_shows_them(width: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    out = io.StringIO()
    console = Console(width=width, force_terminal=True, color_system=None, file=out)
    settings = RunSettings(steps=4, validate_every=2)
    fit(Idle(), settings, tmp_path / "ours", resume=False, config={}, console=console)
    lines = re.sub(r"\x1b\[[0-9?]*[a-zA-Z]", "", out.getvalue()).replace("\r", "\n").split("\n")
    last = [line for line in lines if line.startswith("ours")][-1]
    assert all(len(line) <= width for line in lines)
    for wanted in ("4/4", "0:00:00", "audio ", " s/s", "total 12.3"):
        assert wanted in last, last


def test_metrics_come_in_the_order_of_their_priority() -> None:
    metrics = metrics_of_ours() | METRICS
    line = shown(120, metrics)
    assert line.endswith("total 12.3 extreme 0.0234 largest_share 0.0512 codes_in_use 153")
    assert "skipped" not in line
    assert "total 12.3 skipped 3 extreme" in shown(120, metrics | {"other/skipped": 3.0})
    assert "codes_in_use 153 pair_semantic 12.3 pair_levels 12.3" in shown(200, metrics)
    assert "total nan" in shown(80, metrics | {"loss/total": math.nan})


def test_trainings_without_a_total_or_seconds_of_audio_show_what_they_have() -> None:
    line = shown(80, {"loss/semantic": 2.5, "speed/steps_per_second": 1.333})
    assert "1.33 steps/s" in line and line.endswith("semantic 2.5")
    assert "12005/30000" in shown(80, {})
