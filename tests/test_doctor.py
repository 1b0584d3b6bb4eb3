"""What `voxclone doctor` finds, and what it says of what is missing."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from tests.helpers.command import Command
from tests.helpers.tiny_release import write_tiny_release
from voxclone import doctor
from voxclone.doctor import Finding, examine

FIND_HUB = doctor._hub


def answered(status: int) -> HfHubHTTPError:
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return HfHubHTTPError("no", response=response)


@pytest.fixture(autouse=True)
def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_hub", lambda: Finding("hub", False, "no", "much", "log in"))


def named(found: list[Finding], name: str) -> Finding:
    return next(each for each in found if each.name == name)


def test_what_is_missing_is_named_with_what_it_prevents_and_what_mends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: Command
) -> None:
    absent = {"av", "lhotse"}
    there = doctor.importlib.util.find_spec
    util = SimpleNamespace(find_spec=lambda name: None if name in absent else there(name))
    find = SimpleNamespace(util=util)
    monkeypatch.setattr(doctor, "importlib", find)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=3e9))
    found = examine(None, tmp_path)
    for each in found:
        assert each.ok or (each.prevents and each.mend), each
    assert named(found, "extra media").mend == "pip install 'voxclone[media]'"
    assert not named(found, "extra data").ok and named(found, "extra train").ok
    assert not named(found, "disk").ok and "3 GB free" in named(found, "disk").found
    code, out, _ = command("doctor")
    assert code == 0 and "prevents M4A" in out and "mend it: pip install 'voxclone[media]'" in out
    absent.add("transformers")
    code, out, _ = command("doctor")
    assert code == 3 and "extra speech: without transformers" in out


@pytest.mark.parametrize(
    ("build", "driver", "mend"),
    [(None, True, "pip install -U torch"), ("12.8", True, "update the driver"), (None, False, "")],
)
def test_torch_and_the_driver(
    build: str | None, driver: bool, mend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if driver else None)
    monkeypatch.setattr(doctor, "DRIVER", tmp_path / "none")
    found = examine(None, tmp_path)
    assert named(found, "torch").ok is not driver and not named(found, "GPU").ok
    assert mend in named(found, "torch").mend


def test_a_card_smaller_than_the_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Card")
    properties = SimpleNamespace(total_memory=16 * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    gpu = named(examine(None, tmp_path), "GPU")
    assert not gpu.ok and "16 GB" in gpu.found and "micro_batches=2" in gpu.mend


def test_a_release_is_checked(tmp_path: Path, command: Command) -> None:
    folder = write_tiny_release(tmp_path / "release")
    code, out, _ = command("doctor", "--model", folder)
    assert code == 0 and "3 presets" in out
    assert f"mend it: voxclone recover --model {folder} --speech SPEECH -o RUN" in out
    (folder / "voice_embedding" / "anna.pt").unlink()
    code, out, _ = command("doctor", "--model", folder)
    assert code == 3 and "anna" in out and "hf download" in out
    code, out, _ = command("doctor", "--model", tmp_path / "none")
    assert code == 3 and "There is no directory" in out
    code, out, _ = command("doctor", "--model", "mini")
    assert code == 0 and "mini.safetensors of the package is for it" in out


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (LocalTokenNotFoundError("no token"), "hf auth login"),
        (answered(401), "hf auth login"),
        (answered(403), "open https://hugging"),
        (answered(503), "fetched elsewhere"),
        (ConnectionError("no network"), "fetched elsewhere"),
        (None, ""),
    ],
)
def test_what_the_hub_lacks(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, mend: str
) -> None:
    def auth_check(self: object, name: str) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr("huggingface_hub.HfApi.auth_check", auth_check)
    found = FIND_HUB()
    assert found.ok == (error is None) and mend in found.mend
