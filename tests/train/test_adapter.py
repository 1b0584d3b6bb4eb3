"""The training of an adapter: it learns, the base does not; resumed and divided it is the same."""

import multiprocessing
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.golden.small_params import DATA
from tests.golden.test_speech_golden import backbone, head
from tests.helpers.adapters import READERS
from tests.helpers.tiny_adapter import adapter_material, config_of, run_in_group, train
from tests.train.tiny import QUIET
from voxclone.errors import ConfigError, TrainingError
from voxclone.release.release import Release
from voxclone.train import distributed
from voxclone.train.adapter.losses import embedding_loss, item_means
from voxclone.train.adapter.preconditions import require_parity
from voxclone.train.adapter.reading import Item, voice_frames
from voxclone.train.adapter.training import build, prove
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone

__all__ = ["backbone", "head"]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.helpers.tiny_adapter"])
SHOWN = list(READERS)


@pytest.mark.parametrize("reader", SHOWN)
def test_an_adapter_learns_and_its_base_does_not(reader: str, tiny_release: Release) -> None:
    config = config_of(reader, run={"steps": 60}, optimizer={"lr": 1e-2, "warmup_steps": 1})
    training = build(config, adapter_material(tiny_release))
    prove(training, QUIET)
    tts = training.tts
    learned = {id(p) for p in training.adapter.parameters.parameters()}
    frozen = {
        name: (value, value.clone())
        for module in (tts.backbone, tts.head, tts.codec)
        for name, value in module.named_parameters()
        if id(value) not in learned
    }
    totals = [float(training.train_step(0)["loss/total"]) for _ in range(30)]  # one batch
    assert totals[-1] < 0.9 * totals[0]
    training.require_same_teacher()
    assert frozen and all(torch.equal(now, before) for now, before in frozen.values())
    assert all(value > 0 for value in training.adapter.changes().values())


@pytest.mark.parametrize("reader", SHOWN)
@pytest.mark.parametrize(
    "weight", ["hidden", "semantic_kl", "velocity", "semantic", "flow", "embedding"]
)
def test_every_loss_reaches_every_reader(weight: str, reader: str, tiny_release: Release) -> None:
    """A switch with a weight: alone it moves the adapter, and what is not asked for is absent."""
    config = config_of(reader)
    off = dict.fromkeys(type(config.weights).model_fields, 0.0)
    values = config.model_dump() | {"weights": off | {weight: 1.0}}
    config = type(config).model_validate(values)
    if weight == "embedding" and reader == "lora":
        with pytest.raises(ConfigError, match="a LoRA does not change"):
            build(config, adapter_material(tiny_release))
        return
    training = build(config, adapter_material(tiny_release))
    before = training.adapter.tensors()
    row = training.train_step(0)
    losses = {name for name in row if name.startswith("loss/")}
    assert losses == {f"loss/{weight}", "loss/total"}
    after = training.adapter.tensors()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_the_preset_loss_is_zero_at_first_and_pulls_back(tiny_release: Release) -> None:
    config = config_of("lora")
    training = build(config, adapter_material(tiny_release))
    assert float(training.train_step(0)["loss/preset"]) < 1e-6
    training.adapter.load({n: t + 0.1 for n, t in training.adapter.tensors().items()})
    assert float(training.train_step(1)["loss/preset"]) > 1e-3


@pytest.mark.parametrize("reader", SHOWN)
def test_a_resumed_run_is_bit_for_bit_that_of_one(
    reader: str, tiny_release: Release, tmp_path: Path
) -> None:
    whole, _ = train(tmp_path / "whole", tiny_release, config_of(reader))
    short = config_of(reader, run={"max_minutes": 0.0})  # stopped by time after each step
    for step in range(6):
        resumed, _ = train(tmp_path / "parts", tiny_release, short)
        assert resumed.state.step == step + 1
    one, other = whole.state.tensors(), resumed.state.tensors()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_config_or_encoder_is_refused(tiny_release: Release, tmp_path: Path) -> None:
    train(tmp_path, tiny_release, config_of("voice"))
    with pytest.raises(ConfigError, match=r"another config, in adapter\.rank"):
        train(tmp_path, tiny_release, config_of("voice", adapter={"rank": 3}))


def test_micro_batches_and_checkpointing_give_the_same_step(tiny_release: Release) -> None:
    found = []
    for run in ({}, {"micro_batches": 2}, {"gradient_checkpointing": True}):
        training = build(config_of("lora", run=run), adapter_material(tiny_release))
        training.train_step(0)
        found.append(training.adapter.tensors())
    for other in found[1:]:
        assert max(float((found[0][n] - other[n]).abs().max()) for n in other) < 1e-5


@pytest.mark.parametrize(
    ("reader", "changes"),
    [
        pytest.param("lora", {"run": {"shard": True}}, marks=pytest.mark.slow),
        pytest.param("lora", {}, marks=pytest.mark.slow),
        pytest.param("table", {"weights": {"embedding": 1.0}}, marks=pytest.mark.slow),
        pytest.param("voice", {"weights": {"embedding": 1.0}}, marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_as_one(
    reader: str, changes: dict[str, Any], tiny_release: Release, tmp_path: Path
) -> None:
    run = changes.get("run", {}) | {"steps": 3}
    changes = changes | {"optimizer": {"lr": 1e-4}, "run": run}
    for size in (1, 2):
        folder = tmp_path / str(size)
        folder.mkdir()
        processes = [
            CONTEXT.Process(
                target=run_in_group,
                args=(rank, size, folder / "meeting", folder, tiny_release.path, reader, changes),
            )
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(200)
            assert process.exitcode == 0
    one, first, second = (
        load_file(tmp_path / name) for name in
        ("1/rank-0.safetensors", "2/rank-0.safetensors", "2/rank-1.safetensors")
    )  # fmt: skip
    assert one.keys() == first.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert max(float((one[name] - first[name]).abs().max()) for name in one) < 1e-5
    assert any("adapter" in name for name in one)
    spoken = [load_file(path)["codes"] for path in sorted(tmp_path.glob("*/spoken-*"))]
    assert len(spoken) == 3 and all(torch.equal(spoken[0], each) for each in spoken)


class Prompts:
    """Prompts of the golden model, whose tokenizer is no file."""

    def __init__(self, ids_L: Tensor) -> None:
        self.given = ids_L.tolist()

    def text_ids(self, text: str) -> list[int]:
        return self.given[self.given.index(36) + 1 : -2]

    def around_text(self, text_ids: list[int]) -> list[int]:
        return [36, *text_ids, 35, 25]

    def ids(self, text: str, frames: int) -> Tensor:
        return torch.tensor([1, 25, *[24] * frames, *self.around_text(self.text_ids(text))])


def golden_item() -> tuple[Prompts, Item, dict[str, Tensor]]:
    case = load_file(DATA / "tts_small.cases.safetensors")
    prompts = Prompts(case["prompt_ids"])
    codes_KT = case["frame_codes_shifted"].long().T - 2
    return prompts, Item(case["voice_embedding"], "golden", codes_KT, stored=True), case


def test_the_golden_model_passes_the_preconditions(backbone: Backbone, head: AcousticHead) -> None:
    """What the training reads equals generation, which equals the references."""
    prompts, item, case = golden_item()
    ids_L = prompts.ids("", len(item.voice))
    assert torch.equal(ids_L, case["prompt_ids"].long())
    assert require_parity(backbone, head, prompts, [item, item]) < 1e-4  # type: ignore[arg-type]


def test_parity_sees_a_shifted_label_and_another_rotation(
    backbone: Backbone, head: AcousticHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, item, _ = golden_item()
    module = "voxclone.train.adapter.preconditions"

    def shifted(hidden_BLD: Tensor, reading: Any) -> Tensor:
        return hidden_BLD[reading.batch.item_N, reading.batch.position_N - 1]

    monkeypatch.setattr(f"{module}.predicting_states", shifted)
    with pytest.raises(TrainingError, match="are not those of generation"):
        require_parity(backbone, head, prompts, [item])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": dict.fromkeys(("hidden", "semantic_kl", "velocity", "semantic", "flow"), 0)},
         "No loss has a weight"),
        ({"batch": 3, "run": {"micro_batches": 2}}, "`batch` is 3"),
        ({"target_frames": 13, "voice_frames": 13, "adapter": {"rank": 0}}, "`adapter.rank` is 0"),
    ],
)  # fmt: skip
def test_impossible_configs_are_refused(
    changes: dict[str, Any], message: str, tiny_release: Release
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        build(config_of("lora", **changes), adapter_material(tiny_release))


def test_codes_out_of_range_are_refused(tiny_release: Release, tmp_path: Path) -> None:
    material = adapter_material(tiny_release)
    material.clips[1] = material.clips[1].clone()
    material.clips[1][0, 3] = 50
    with pytest.raises(ConfigError, match="has the code 50 in codebook 0, which has 50 codes"):
        build(config_of("lora"), material)


def test_item_means_weigh_items_alike() -> None:
    value_N, item_N = torch.tensor([1.0, 1.0, 1.0, 5.0]), torch.tensor([0, 0, 0, 1])
    assert float(item_means(value_N, item_N)) == 3.0
    weight_N = torch.tensor([1.0, 1.0, 1.0, 9.0])
    assert float(item_means(value_N, item_N, weight_N)) == 3.0


def test_the_embedding_loss_is_small_for_presets(tiny_release: Release) -> None:
    training = build(config_of("voice"), adapter_material(tiny_release))
    presets_ND = [each.float() for each in training.objective.material.presets.values()]
    shape = training.objective.shape
    assert float(embedding_loss(presets_ND, shape)) < 0.01
    assert float(embedding_loss([2 * each for each in presets_ND], shape)) > 0.5
    item = Item(training.objective.material.clips[1], "", training.objective.material.clips[1])
    rows_ND = voice_frames(training.tts.backbone, item)
    assert torch.equal(rows_ND, rows_ND.to(torch.bfloat16).float())
    assert distributed.world_size() == 1
