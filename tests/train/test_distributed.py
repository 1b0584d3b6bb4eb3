"""Several processes train as one: the same weights for the same batch, and all stop together."""

import json
import multiprocessing
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.train import full
from voxclone.errors import ConfigError
from voxclone.train import distributed
from voxclone.train.batch import MicroBatch, check_batches, micro_batches

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.train.full"])
# Steps so small that what differs is what was computed and not where it led (Muon rounds to bf16
# on its way), and three of them, with every part in use in the third: a code that is nearly as near
# as another one would fall to either side sooner or later.
SMALL = {"optimizer": {"lr": 1e-4, "muon": False}}

THREE = {
    "run": {"steps": 3}, "weights": {"pseudo_label": 0.3},
    "pseudo_labels": {"label_steps": [0], "clips": 5},
}  # fmt: skip


def begin(size: int, folder: Path, **arguments: Any) -> list[Any]:
    """Start `size` processes on one training."""
    folder.mkdir(exist_ok=True)
    meeting = folder / f"meeting-{len(list(folder.glob('meeting-*')))}"
    given = {"changes": {}, "poisoned": {}} | arguments
    processes = [
        CONTEXT.Process(target=full.run_in_group, args=(rank, size, meeting, folder), kwargs=given)
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    return processes


def together(size: int, folder: Path, *, expected: int = 0, **arguments: Any) -> Path:
    """Run `size` processes on one training and return its folder."""
    for process in begin(size, folder, **arguments):
        process.join(200)
        assert process.exitcode == expected, process.exitcode
    return folder


def encoder_of(folder: Path, rank: int = 0) -> dict[str, torch.Tensor]:
    state = load_file(folder / f"rank-{rank}.safetensors")
    return {k: v for k, v in state.items() if k.startswith(("module.", "written."))}


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of two weights."""
    assert one.keys() == other.keys() and one
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def moments_difference(one: Path, other: Path) -> float:
    """The largest difference of mean gradients, as a share of the largest one of its optimizer: a
    loss that is weighted wrongly shows here, where Adam has not yet made up for it."""
    shares = []
    state, second = (load_file(folder / "rank-0.safetensors") for folder in (one, other))
    for name in ("adamw", "discriminator", "distillation"):
        keys = [k for k in state if k.startswith(f"optimizer.{name}.") and k.endswith(".exp_avg")]
        largest = max(float(state[key].abs().max()) for key in keys)
        shares += [float((state[key] - second[key]).abs().max()) / largest for key in keys]
    return max(shares)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training by one process."""
    return together(1, tmp_path_factory.mktemp("alone"), changes=SMALL | THREE)


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_share_a_batch_and_end_with_the_weights_of_one(
    size: int, alone: Path, tmp_path: Path
) -> None:
    """All modules: encoder and its mean, discriminators, projection."""
    shared = together(size, tmp_path, changes=SMALL | THREE)
    one, other = encoder_of(alone), encoder_of(shared)
    assert largest_difference(one, other) < 1e-5
    assert moments_difference(alone, shared) < 1e-4
    for rank in range(1, size):
        assert largest_difference(encoder_of(shared), encoder_of(shared, rank)) == 0
    assert len(list((shared / "checkpoints").iterdir())) == 2  # written by one


@pytest.mark.slow
def test_micro_batches_are_equal_to_processes(tmp_path: Path) -> None:
    """Four micro-batches of one process have the loss of one micro-batch of four."""
    plain = {
        "run": {"micro_batches": 2},
        "balance": False,
        "weights": {"feature_matching": 0, "stft": 0, "l1": 0, "low": 0, "level_prior": 0,
                    "diversity": 0, "scale": 0},
    }  # fmt: skip
    whole = together(1, tmp_path / "a", changes=plain | SMALL | {"run": {"micro_batches": 1}})
    parts = together(1, tmp_path / "b", changes=plain | SMALL)
    both = together(2, tmp_path / "c", changes=plain | SMALL)
    assert largest_difference(encoder_of(whole), encoder_of(parts)) < 1e-5
    assert largest_difference(encoder_of(whole), encoder_of(both)) < 1e-5


@pytest.mark.slow
def test_a_signal_to_one_ends_all_and_they_go_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    whole = together(2, tmp_path / "whole")
    halves = together(2, tmp_path / "halves", terminate_at=3, expected=5)
    assert (halves / "rank-0.txt").read_text().startswith(" 4 ")
    together(2, tmp_path / "halves")
    for rank in range(2):
        state, other = (load_file(f / f"rank-{rank}.safetensors") for f in (whole, halves))
        assert all(torch.equal(state[key], other[key]) for key in state)


@pytest.mark.slow
def test_a_step_that_fails_in_one_is_skipped_in_all(tmp_path: Path) -> None:
    """And so many in a row end the run, in all."""
    once = together(2, tmp_path / "once", poisoned={1: [2]})
    assert largest_difference(encoder_of(once), encoder_of(once, 1)) == 0
    assert all(bool(torch.isfinite(value).all()) for value in encoder_of(once).values())
    for rank in range(2):
        assert "'skipped': 1" in (once / f"rank-{rank}.txt").read_text()
    wrong = {0: [1, 3], 1: [4, 5]}
    often = together(2, tmp_path / "often", expected=1, poisoned=wrong, most_skipped=2)
    text = [(often / f"rank-{rank}.txt").read_text() for rank in range(2)]
    assert text[0].startswith("The training was stopped: 2 steps in a row, up to step 5")
    assert text[1].startswith(" 5 ") and all("'skipped': 3" in each for each in text)


@pytest.mark.slow
def test_a_signal_to_one_ends_labeling_in_all(tmp_path: Path) -> None:
    """To one that waits while the first one labels; then all goes on as if nothing had been."""
    labeling = {
        "weights": {"pseudo_label": 0.5}, "run": {"steps": 4, "save_every": 100},
        "pseudo_labels": {"label_steps": [2], "clips": 40},
    }  # fmt: skip
    whole = together(2, tmp_path / "whole", changes=labeling)
    halves = together(2, tmp_path / "halves", changes=labeling, terminate_at_clip=3, expected=5)
    assert len((halves / "labeled").read_text().split()) < 10
    assert [path.name for path in (halves / "checkpoints").iterdir()] == ["step-0000002"]
    assert all((halves / f"rank-{rank}.txt").read_text().startswith(" 2 ") for rank in range(2))
    together(2, tmp_path / "halves", changes=labeling)
    for rank in range(2):
        state, other = (load_file(f / f"rank-{rank}.safetensors") for f in (whole, halves))
        assert all(torch.equal(state[key], other[key]) for key in state)


@pytest.mark.slow
def test_an_error_in_one_saves_the_steps_before_it(tmp_path: Path) -> None:
    """In a process that is not the first; the others wait for it and for nothing else."""
    seldom = {"run": {"save_every": 100}}
    whole = together(2, tmp_path / "whole", changes=seldom)
    halves = together(2, tmp_path / "halves", changes=seldom, vanished={1: 4}, expected=1)
    assert (halves / "rank-1.txt").read_text().startswith("c1 cannot be read.")
    left = [path.name for path in (halves / "checkpoints").iterdir()]
    assert left == ["step-0000004"]
    both = together(2, tmp_path / "halves", changes=seldom, vanished={0: 5, 1: 5}, expected=1)
    assert {path.name for path in (both / "checkpoints").iterdir()} == {left[0], "step-0000005"}
    together(2, tmp_path / "halves", changes=seldom)
    for rank in range(2):
        state, other = (load_file(f / f"rank-{rank}.safetensors") for f in (whole, halves))
        assert all(torch.equal(state[key], other[key]) for key in state)


FOREVER = 1000.0
SELDOM = {"run": {"save_every": 100}, "pair_batch": 6, "real_batch": 6}


def alike(one: Path, other: Path) -> bool:
    """Whether two trainings of two processes ended with the same state, bit for bit, in both."""
    for rank in range(2):
        state, second = (load_file(f / f"rank-{rank}.safetensors") for f in (one, other))
        if not all(torch.equal(state[key], second[key]) for key in state):
            return False
    return True


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training by two processes."""
    return together(2, tmp_path_factory.mktemp("undisturbed"), changes=SELDOM)


@pytest.mark.slow
@pytest.mark.parametrize("hanging", [0, 1])
def test_a_process_that_hangs_ends_the_other_with_a_sentence(
    hanging: int, undisturbed: Path, tmp_path: Path
) -> None:
    """In its fifth step; the other one waits for 30 s. Killed and begun again, all is well."""
    processes = begin(
        2, tmp_path, changes=SELDOM, longest_step=30.0, pauses={hanging: (4, FOREVER)}
    )
    processes[1 - hanging].join(120)
    took = time.time() - (tmp_path / f"paused-{hanging}").stat().st_mtime
    print(f"\nR7: the other one ended {took:.1f} s after the process hung")
    assert processes[1 - hanging].exitcode == 1 and took < 30 + distributed.GRACE_SECONDS + 5
    assert processes[hanging].is_alive()
    processes[hanging].kill()
    processes[hanging].join()
    text = (tmp_path / f"rank-{1 - hanging}.txt").read_text()
    assert text.startswith(
        f"The training has lost process {hanging} on {socket.gethostname()}: it has ended, or has "
        "not answered for 30.0 s. See the end of its log"
    )
    assert "go on with `--resume`. 4 " in text
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000004"]
    together(2, tmp_path, changes=SELDOM)
    assert alike(undisturbed, tmp_path)


@pytest.mark.slow
def test_of_three_processes_two_name_the_one_that_hangs(tmp_path: Path) -> None:
    processes = begin(3, tmp_path, changes=SELDOM, longest_step=30.0, pauses={1: (4, FOREVER)})
    for rank in (0, 2):
        processes[rank].join(120)
        assert processes[rank].exitcode == 1
        text = (tmp_path / f"rank-{rank}.txt").read_text()
        assert text.startswith(f"The training has lost process 1 on {socket.gethostname()}: ")
    processes[1].kill()
    processes[1].join()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000004"]


@pytest.mark.slow
def test_a_process_that_is_slow_is_waited_for_but_not_for_ever(
    undisturbed: Path, tmp_path: Path
) -> None:
    """Paused for 5 s where 60 s are allowed; paused for 60 s where 30 s are, it is given up."""
    slow = together(2, tmp_path / "slow", changes=SELDOM, longest_step=60.0, pauses={1: (4, 5.0)})
    assert alike(undisturbed, slow)
    late = together(
        2, tmp_path / "late", changes=SELDOM, longest_step=30.0, pauses={1: (4, 60.0)}, expected=1
    )
    assert "has lost process 1 on" in (late / "rank-0.txt").read_text()
    assert "have lost each other" in (late / "rank-1.txt").read_text()
    together(2, tmp_path / "late", changes=SELDOM)
    assert alike(undisturbed, late)


@pytest.mark.slow
def test_a_slow_disk_of_the_first_is_waited_for(undisturbed: Path, tmp_path: Path) -> None:
    """Each of the five flushes of a checkpoint takes a second more, after each step."""
    often = SELDOM | {"run": {"save_every": 1}}
    together(2, tmp_path, changes=often, flush_seconds=1.0, longest_step=60.0)
    assert alike(undisturbed, tmp_path)


@pytest.mark.slow
def test_a_folder_that_is_not_shared_is_named_before_any_work(tmp_path: Path) -> None:
    here = together(2, tmp_path, outs=["here", "there"], expected=1)
    assert not list(here.glob("prepared-*"))
    assert "is not the same one on all machines" in (here / "rank-0.txt").read_text()
    assert not (here / "rank-1.txt").read_text()  # once is enough
    few = {"run": {"steps": 1}}
    shared = together(2, tmp_path / "shared", outs=["new/run"] * 2, changes=few)
    assert len(list(shared.glob("prepared-*"))) == 2


def test_batches_that_cannot_be_shared_are_named() -> None:
    check_batches({"real_batch": 12, "pair_batch": 6}, 3)
    with pytest.raises(ConfigError, match=r"`pair_batch` is 6.*`run.micro_batches` 4.*of 4"):
        check_batches({"real_batch": 12, "pair_batch": 6}, 4)


def test_micro_batches_cover_a_batch_in_order() -> None:
    slices = [micro.of(12) for micro in micro_batches(3)]
    assert [(s.start, s.stop) for s in slices] == [(0, 4), (4, 8), (8, 12)]
    assert MicroBatch(1, 3).parts == 3 and MicroBatch().of(7) == slice(0, 7)


def test_alone_nothing_is_done() -> None:
    own = torch.ones(3, requires_grad=True)
    assert distributed.mean(own) is own and distributed.gather(own) is own
    assert distributed.world_size() == 1 and distributed.is_rank0()
    assert distributed.broadcast({"a": 1}) == {"a": 1}
    assert distributed.any_rank(True, False) == [True, False]
    distributed.start(torch.device("cpu"))  # no torchrun
    assert distributed.world_size() == 1
    distributed.stop()


@pytest.mark.slow
def test_torchrun_starts_the_command(manifest: Path, tmp_path: Path) -> None:
    """On the mini release: one voice, one encoder file, and a release that is not touched."""
    values = {
        "run": {"steps": 2, "validate_every": 2}, "pairs": {"minutes": 0},
        "weights": {"bridge": 0.1}, "teacher": "mini",
        "pair_batch": 2, "real_batch": 2, "frames": 4, "real_from": 0, "licenses": ["CC0-1.0"],
    }  # fmt: skip
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(values))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone",
              "--nproc-per-node", "2", "-m", "voxclone"]  # fmt: skip
    command = [*launch, "train", "encoder", str(config), "--out", str(tmp_path / "run"),
               "--speech", str(manifest), "--device", "cpu"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Wrote") == 1 and done.stdout.count("step 2:") == 1
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"encoder.safetensors", "best.safetensors", "log.jsonl"} <= names
    uneven = subprocess.run(
        [*command, "--resume", "--set", "real_batch=3"],
        capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert uneven.returncode == 1
    assert uneven.stderr.count("voxclone: `real_batch` is 3, which 2 processes") == 1
