"""The whole command on the mini release, from a folder of recordings; and killed at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.command import Command
from tests.recover.speech import write_recordings

SHORT = (
    *("--set", "run.steps=12", "--set", "run.save_every=2", "--set", "pairs.minutes=0.05"),
    *("--set", "real_from=2", "--set", "real_batch=4", "--set", "pair_batch=2"),
    *("--set", "pseudo_labels.label_steps=[4]", "--set", "pseudo_labels.clips=4"),
)
CLIPS = dict.fromkeys(("ben", "dot", "eve", "fay"), 10) | {"ada": 1, "cid": 1}
"""The last two are those that are set aside, which keeps the measurements short."""


@pytest.mark.slow
def test_from_recordings_to_the_gates_in_ninety_seconds(tmp_path: Path, command: Command) -> None:
    """Of an idle core; the encoder of twelve steps fails checks."""
    folder, run = write_recordings(tmp_path / "recordings", CLIPS), tmp_path / "run"
    begun = time.process_time()
    code, out, error = command("recover", "--speech", folder, "-o", run, *SHORT)
    assert code == 3, (out, error)
    assert time.process_time() - begun < 120
    for stage in ("prepare", "validate", "pairs", "train", "diagnose", "evaluate"):
        assert f"{stage}: done in" in out, stage
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert page.count("<audio") == 6  # two test speakers: recording, decoded, clone


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_and_given_again_it_ends_as_if_it_had_not(tmp_path: Path) -> None:
    """SIGKILL in each of three moments; the end is bit for bit that of an uninterrupted run."""
    folder = write_recordings(tmp_path / "recordings", CLIPS)

    def start(name: str) -> "subprocess.Popen[bytes]":
        command = ["recover", "--speech", str(folder), "-o", str(tmp_path / name), *SHORT]
        return subprocess.Popen(
            [sys.executable, "-m", "voxclone", *command, "--until", "train"],
            stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
        )  # fmt: skip

    assert start("whole").wait(1500) == 0
    moments = ("prepare-*/speech/parts/*", "pairs-*/pairs/pairs.json", "train-*/run/*/step-*")
    for pattern in moments:
        process, until = start("killed"), time.monotonic() + 1500
        while not list((tmp_path / "killed").glob(pattern)):
            assert process.poll() is None and time.monotonic() < until, pattern
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert start("killed").wait(1500) == 0
    ends = [
        load_file(next((tmp_path / name).glob("train-*/run/encoder.safetensors")))
        for name in ("whole", "killed")
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    log = (tmp_path / "killed" / "recover.log").read_text(encoding="utf-8")
    for stage in ("prepare", "pairs", "train"):
        assert f"{stage}: it was interrupted and continues." in log
