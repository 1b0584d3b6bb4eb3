"""Benchmarks begin, and that of a training step measures what it says, at a tiny size."""

import argparse
import importlib
from pathlib import Path

import pytest
import torch

import voxclone.codec.layers as layers
from tests.train.tiny import CODEC
from voxclone.codec.layers import alibi_slopes, window_attention

BENCH = Path(__file__).parents[1] / "bench"
OPTIONS = argparse.Namespace(seconds=1.0, batch=1, steps=1, processor_time=True)


@pytest.fixture(autouse=True)
def _bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setattr(layers, "window_attention", window_attention)  # put back after each test


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCH.glob("*.py")))
def test_a_benchmark_finds_what_it_measures(name: str) -> None:
    module = importlib.import_module(name)
    assert Path(str(module.__file__)).parent == BENCH


def test_dense_attention_is_ours() -> None:
    from community_step import dense_attention

    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 50, 4, 8, generator=generator) for _ in range(3))
    for window in (2, 16):
        dense = dense_attention(q, k, v, alibi_slopes(4), window)
        ours = window_attention(q, k, v, alibi_slopes(4), window)
        torch.testing.assert_close(dense, ours, atol=1e-5, rtol=1e-4)


def test_the_published_step_moves_encoder_and_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    import community_step

    tiny = {"d_model": 16} | {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {"layers": 1, "attention_heads": 2, "ffn_dim": 16}.items()
    }
    monkeypatch.setattr(community_step, "WHISPER_BASE", tiny)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        work = community_step.CommunityStep(CODEC, torch.device("cpu"), 1.0, channels=1)
        wave_BS = 0.05 * torch.randn(1, 24000)
    moved = []
    for step in (0, 1):
        modules = (work.codec.require_encoder(), work.judges, work.codec.decoder, work.projection)
        before = [[p.detach().clone() for p in module.parameters()] for module in modules]
        work(wave_BS, step)
        moved.append(
            [
                any(not torch.equal(b, p) for b, p in zip(old, module.parameters(), strict=True))
                for old, module in zip(before, modules, strict=True)
            ]
        )
    assert moved == [[True, True, False, True], [True, False, False, True]]
    assert set(work.balancer.sums) == {"mel", "wav", "stft", "feat", "spk"}


@pytest.mark.parametrize("name", ["ours", "community_v3_mended"])
def test_a_recipe_is_measured(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import train_step

    monkeypatch.setattr(train_step, "CodecConfig", lambda **values: CODEC)
    monkeypatch.setattr(train_step, "MATRIX", 64)
    device = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        path = train_step.CONFIGS / f"{name}.yaml"
        overrides = ["adversary.channels=2", "adversary.n_ffts=[334, 76]"]
        task = train_step.build_task(path, device, 1.0, 1, tmp_path, overrides)
    meter = train_step.Meter(device, torch.float32, True)
    whole = train_step.measure(task.train_step, {0: 1.0}, meter, OPTIONS)
    assert all(value > 0 for value in whole.values())
    costs = train_step.cost_of_losses(task, {0: 1.0}, meter, OPTIONS, whole)
    used = {key for key, value in task.settings.weights.model_dump().items() if value}
    expected = used - {"waveform", "pair_semantic", "pair_levels"} | {"optimiser"}
    assert set(costs) == (expected | {"pairs"} if name == "ours" else expected)
    dear = "pairs" if name == "ours" else "feature"
    assert 0 < costs[dear]["tflop"] < whole["tflop"]
