"""Benchmarks import, that of a training step measures every loss at a tiny size, and the plots of
failures show the runs that they come from."""

import argparse
import importlib
import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import voxclone.codec.layers as layers
from tests.train.tiny import CODEC
from voxclone.codec.layers import alibi_slopes, window_attention
from voxclone.errors import ConfigError
from voxclone.train.encoder import EncoderTraining

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

        def made(*overrides: str) -> EncoderTraining:
            small = ["discriminators.channels=2", "left_context=2", *overrides]
            return train_step.build_training(path, device, 1.0, 1, tmp_path, small)

        task = made()
    meter = train_step.Meter(device, torch.float32, True)
    whole = train_step.measure(task.train_step, meter, OPTIONS)
    assert all(value > 0 for value in whole.values())
    costs = train_step.cost_of_losses(task, made, meter, OPTIONS, whole)
    used = {key for key, value in task.config.weights.model_dump().items() if value}
    expected = used - {"pair_semantic", "pair_levels"} | {"optimizers"}
    assert set(costs) == (expected | {"pairs"} if name == "voxtral_4b" else expected)
    dear = "pairs" if name == "voxtral_4b" else "feature_matching"
    assert 0 < costs[dear]["tflop"] < whole["tflop"]


SVG = "{http://www.w3.org/2000/svg}"


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


def parse(plot: str) -> tuple[list[list[tuple[float, float]]], list[str]]:
    """The curves, as pixels, and all labels, checked to be within the background."""
    root = ElementTree.fromstring(plot)
    background = next(iter(root.iter(f"{SVG}rect")))
    assert background.get("fill") == "#fff"
    width, height = (float(root.get(side) or 0) for side in ("width", "height"))
    curves = []
    for line in root.iter(f"{SVG}polyline"):
        pairs = [pair.split(",") for pair in (line.get("points") or "").split()]
        curves.append([(float(x), float(y)) for x, y in pairs])
    labels = list(root.iter(f"{SVG}text"))
    points = [(float(each.get("x") or 0), float(each.get("y") or 0)) for each in labels]
    points += [point for curve in curves for point in curve]
    assert all(0 < x < width and 0 < y < height for x, y in points)
    return curves, [each.text or "" for each in labels]


def test_the_plot_of_collapse_has_every_seed(study: Path) -> None:
    from failure_plots import plot_collapse
    from plot_failures import COLLAPSE_RECIPES, read_minutes, read_study

    codes = {
        name: [each["diagnosis"]["semantic_codes"] for each in read_study(study, name)]
        for name in ("oracle", "paper")
    }
    curves, labels = parse(plot_collapse(codes, read_minutes(study, COLLAPSE_RECIPES)))
    prior, oracle, *collapsed = curves
    assert len(collapsed) == 2 and collapsed[0] == collapsed[1]
    assert len(oracle) == len(prior) == len(collapsed[0]) == 8
    one, every = oracle[0][1], oracle[-1][1]
    assert collapsed[0][-1][1] == every and (collapsed[0][0][1] - every) / (
        one - every
    ) == pytest.approx((1 - 193 / 200) / (1 - 25 / 200), abs=0.01)
    assert any(each.startswith("number of most frequent semantic codes") for each in labels)
    assert any(each.startswith("share of frames") for each in labels)
    assert {"oracle", "paper", "7.9", "1.2", "96.5", "12.5", "0", "100"} <= set(labels)
    assert any("for 6 minutes" in each for each in labels)


def test_the_plot_of_saturation_follows_the_steps(study: Path) -> None:
    from failure_plots import plot_saturation
    from plot_failures import read_logs

    runs = read_logs(study, "paper")
    assert len(runs) == 2  # without the interrupted one
    curves, labels = parse(plot_saturation({"paper": runs, "naive": runs}))
    assert len(curves) == 2 * 3 * 2
    for loss, mel, ends in (curves[0:6:2], curves[6::2]):
        for curve, turn in ((loss, 1), (mel, 1), (ends, -1)):  # pixels are counted from above
            assert [x for x, _ in curve] == sorted(x for x, _ in curve)
            heights = [turn * y for _, y in curve]
            assert heights == sorted(heights) and heights[0] < heights[-1]
    assert curves[6][0][0] > curves[0][-1][0]  # a column each
    assert [each for each in labels if each == "step"] == ["step"] * 2
    for name in ("training: reconstruction", "mel distance", "levels at either end, %"):
        assert len([each for each in labels if name in each]) == 1
    assert {"paper", "naive", "1", "0.2", "0.6", "30", "0.33", "0.17", "30.0"} <= set(labels)


def test_the_plot_of_rejection_sets_mel_distance_beside_likelihood() -> None:
    from failure_plots import RECIPES, DecodedClip, plot_rejection

    def diagnosis(mel: float, nats: float) -> dict[str, Any]:
        mels, nll = ({"mean": v, "low": 0.9 * v, "high": 1.1 * v} for v in (mel, nats))
        return {
            "round_trip": {"mel_distance": mels},
            "language_model": {"conditioning_gain": {"semantic_nll": nll}},
            "semantic_codes": {"perplexity": math.e, "kl": 4.0},
        }

    generator = torch.Generator().manual_seed(0)
    waves_3S = 0.1 * torch.randn(3, 24000, generator=generator)
    clips = [DecodedClip("recording", waves_3S[0], "“text”")]
    for (name, mel, nats), wave_S in zip(
        (("oracle", 0.31, 2.5), ("naive", 0.29, 7.5)), waves_3S[1:], strict=True
    ):
        recipe = RECIPES[name]
        report = diagnosis(mel, nats)
        clips.append(DecodedClip(recipe.title, wave_S, "note", recipe.color, report))
    plot = plot_rejection(clips)
    _, labels = parse(plot)
    root = ElementTree.fromstring(plot)
    assert len({each.get("href") for each in root.iter(f"{SVG}image")}) == 3
    discs = [each for each in root.iter(f"{SVG}circle") if each.get("fill") != "none"]
    rings = [each for each in root.iter(f"{SVG}circle") if each.get("fill") == "none"]
    oracle_mel, naive_mel, oracle_nats, naive_nats = (float(each.get("cx") or 0) for each in discs)
    assert naive_mel < oracle_mel < oracle_nats < naive_nats
    assert len(rings) == 2
    assert oracle_nats < float(rings[0].get("cx") or 0) < naive_nats  # 5 nats lie between
    assert {"0.310", "0.290", "2.50", "7.50", "“text”", "8 kHz", "1 s"} <= set(labels)
    assert any("mel distance" in each for each in labels)
    assert any("nats per frame" in each for each in labels)


def test_a_standalone_picture_has_a_background_and_a_title() -> None:
    from failure_plots import standalone

    picture = standalone(100, 50, "This & that", "<g/>")
    assert picture.startswith('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 50"')
    assert 'fill="#fff"' in picture and ">This &amp; that</text><g/></svg>" in picture


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
