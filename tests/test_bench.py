"""Benchmarks import, that of a training step measures every loss at a tiny size, and the plots of
failures show the runs that they come from."""

import argparse
import importlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import voxclone.codec.layers as layers
from tests.train.tiny import CODEC
from voxclone.codec.layers import alibi_slopes, window_attention
from voxclone.errors import ConfigError

FOLDERS = [Path(__file__).parents[1] / name for name in ("bench", "experiments")]
OPTIONS = argparse.Namespace(seconds=1.0, batch=1, steps=1, processor_time=True)


@pytest.fixture(autouse=True)
def _bench(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in FOLDERS:
        monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(layers, "window_attention", window_attention)  # put back after each test


@pytest.mark.parametrize(
    "path", [p for folder in FOLDERS for p in sorted(folder.glob("*.py"))], ids=lambda p: p.stem
)
def test_a_benchmark_imports(path: Path) -> None:
    assert Path(str(importlib.import_module(path.stem).__file__)) == path


def test_the_speed_of_the_server_is_documented_with_its_commands() -> None:
    """Each command asks as many times as the text beside it says."""
    from serve import options

    document = Path(__file__).parents[1] / "docs" / "SERVING.md"
    section = document.read_text(encoding="utf-8").partition("## Speed")[2].partition("## ")[0]
    lines = [line for line in section.splitlines() if "bench/serve.py" in line]
    assert len(lines) == 2
    for line in lines:
        arguments, requests = re.findall(
            r"bench/serve\.py([^`]*)`.* (\d+) requests a client", line
        )[0]
        assert options().parse_args(arguments.split()).requests == int(requests)


def test_dense_attention_equals_that_of_the_codec() -> None:
    from codec import dense_attention

    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 50, 4, 8, generator=generator) for _ in range(3))
    for window in (2, 16):
        dense = dense_attention(q, k, v, alibi_slopes(4), window)
        ours = window_attention(q, k, v, alibi_slopes(4), window)
        torch.testing.assert_close(dense, ours, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["voxtral_4b", "community"])
def test_a_recipe_is_measured(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import train_step

    monkeypatch.setattr(train_step, "CodecConfig", lambda **values: CODEC)
    monkeypatch.setattr(train_step, "MATRIX", 64)
    device = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        path = train_step.CONFIGS / f"{name}.yaml"
        small = ["discriminators.channels=2", "left_context=2"]
        task = train_step.build_training(path, device, 1.0, 1, tmp_path, small)
    meter = train_step.Meter(device, torch.float32, True)
    whole = train_step.measure(task.train_step, meter, OPTIONS)
    assert all(value > 0 for value in whole.values())
    used = {key for key, value in task.config.weights.model_dump().items() if value}
    assert {f"loss/{key}" for key in used} <= set(task.train_step(0))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """An oracle with a uniform histogram, two seeds of a recipe that collapses and saturates, and a
    seed that was interrupted."""
    uniform, collapsed = [25] * 8, [193, *[1] * 7]
    for name, counts in (("oracle", uniform), ("paper-0", collapsed), ("paper-1", collapsed)):
        shares = [count / 200 for count in counts]
        codes = {
            "frames": 200,
            "counts": counts,
            "prior": [1 / 8] * 8,
            "perplexity": math.exp(-sum(share * math.log(share) for share in shares)),
            "expected_perplexity": 7.9,
            "codes_in_use": 8,
            "largest_share": max(shares),
        }
        (tmp_path / f"{name}.json").write_text(json.dumps({"diagnosis": {"semantic_codes": codes}}))
    for name in ("paper-0", "paper-1", "paper-2"):
        (tmp_path / name).mkdir()
        rows: list[
            dict[str, float | None]
        ] = [  # of a step that was skipped, and values that were not finite
            {"step": 5, "loss/stft": None},
            {"step": 5, "real/mel": None, "real/extreme": None},
        ]
        for step in (10, 20, 30):
            rows.append({"step": step, "loss/stft": 30 / step})
            rows.append({"step": step, "real/mel": 5 / step, "real/extreme": step / 100})
        (tmp_path / name / "log.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        minutes = 60 if name == "paper-2" else 6.2
        (tmp_path / name / "spent.json").write_text(json.dumps({"minutes": minutes}))
        if name != "paper-2":
            (tmp_path / name / "encoder.safetensors").touch()
    return tmp_path


def test_the_plot_of_collapse_has_every_seed(study: Path) -> None:
    from plot_failures import plot_collapse, read_study

    codes = {
        name: [each["diagnosis"]["semantic_codes"] for each in read_study(study, name)]
        for name in ("oracle", "paper")
    }
    (axes,) = plot_collapse(codes).axes
    prior, oracle, *collapsed = (np.asarray(line.get_ydata()) for line in axes.lines)
    assert len(collapsed) == 2 and (collapsed[0] == collapsed[1]).all()
    assert len(oracle) == len(prior) == len(collapsed[0]) == 8
    assert oracle[0] == pytest.approx(12.5) and collapsed[0][0] == pytest.approx(96.5)
    assert prior[-1] == pytest.approx(100) and oracle[-1] == pytest.approx(100)
    legend = axes.get_legend()
    assert legend is not None
    words = [each.get_text() for each in legend.get_texts()]
    assert words[0] == "prior: perplexity 7.9"
    assert words[2] == "paper: perplexity 1.2, 8 codes, top code 96.5 %" and len(words) == 3


def test_the_plot_of_saturation_follows_the_steps(study: Path) -> None:
    from plot_failures import plot_saturation, read_logs

    runs = read_logs(study, "paper")
    assert len(runs) == 2  # without the interrupted one
    axes = plot_saturation({"paper": runs, "naive": runs}).axes
    assert len(axes) == 6 and all(len(each.lines) == 2 for each in axes)
    loss, mel, ends = (np.asarray(axes[n].lines[0].get_ydata()) for n in (0, 2, 4))
    steps = np.asarray(axes[0].lines[0].get_xdata())
    assert steps.tolist() == [10, 20, 30]  # without the step that was skipped
    assert loss == pytest.approx([1, 1 / 2, 1 / 3])
    assert mel == pytest.approx([0.5, 0.25, 1 / 6]) and ends == pytest.approx([10, 20, 30])
    assert [axes[0].get_title(), axes[1].get_title()] == ["paper", "naive"]


def test_the_plot_of_rejection_sets_mel_distance_beside_likelihood(tmp_path: Path) -> None:
    from plot_failures import DecodedClip, plot_rejection

    def diagnosis(mel: float, nats: float) -> dict[str, Any]:
        mels, nll = ({"mean": v, "low": 0.9 * v, "high": 1.1 * v} for v in (mel, nats))
        return {
            "round_trip": {"mel_distance": mels},
            "language_model": {"conditioning_gain": {"semantic_nll": nll}},
            "semantic_codes": {"perplexity": math.e, "kl": 4.0},
        }

    generator = torch.Generator().manual_seed(0)
    waves_3S = 0.1 * torch.randn(3, 24000, generator=generator)
    clips = [
        DecodedClip("recording", waves_3S[0], "“text”"),
        DecodedClip("oracle", waves_3S[1], "note", diagnosis(0.31, 2.5)),
        DecodedClip("naive", waves_3S[2], "note", diagnosis(0.29, 7.5)),
    ]
    figure = plot_rejection(clips)
    mel, nll, *spectrograms = figure.axes
    assert [float(np.ravel(each.get_xdata())[0]) for each in mel.lines] == [0.31, 0.29]
    assert [float(np.ravel(each.get_xdata())[0]) for each in nll.lines] == [2.5, 7.5]
    ring = np.asarray(nll.collections[-1].get_offsets())
    assert ring[:, 0] == pytest.approx([5, 5])  # entropy of one nat, and four of KL
    assert [each.get_title() for each in spectrograms] == [
        "recording\n“text”",
        "oracle\nnote",
        "naive\nnote",
    ]
    figure.savefig(tmp_path / "rejected.svg")


def test_plots_need_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import plot_failures

    folders = [
        f"--{option}={tmp_path}" for option in ("study", "reports", "speech", "oracle", "out")
    ]
    options = ["plot_failures", "--clip", "x", "--encoder", f"naive={tmp_path}", *folders]
    monkeypatch.setattr("sys.argv", options)
    with pytest.raises(ConfigError, match=r"no measured runs.*experiments/study\.py"):
        plot_failures.main()
    monkeypatch.setattr("sys.argv", [*options, "--encoder", f"someone={tmp_path}"])
    with pytest.raises(SystemExit, match="2"):
        plot_failures.main()
