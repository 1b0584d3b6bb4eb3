"""Encoders as people have them: in checkpoints, under prefixes, with averages beside them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.tiny_release import random_entries, write_tiny_release
from voxclone.errors import ReleaseError
from voxclone.release.encoder_file import find_encoder, open_codec, open_external_encoder
from voxclone.release.encoder_layouts import read_encoder_tensors
from voxclone.release.release import Release
from voxclone.release.tensors import encoder_tensors

PREFIX = "audio_tokenizer."
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return Release.open(write_tiny_release(tmp_path_factory.mktemp("layouts") / "release"))


def encoder(release: Release, seed: int = 1) -> State:
    """A random encoder by the names in the release."""
    made = random_entries(encoder_tensors(release.params), seed, torch.float32)
    return {each.name: each.make() for each in made}


def renamed(state: State, prefix: str) -> State:
    """The state with `prefix` instead of `audio_tokenizer.`."""
    return {prefix + name.removeprefix(PREFIX): tensor for name, tensor in state.items()}


def layouts(state: State) -> dict[str, tuple[Any, str]]:
    """Checkpoints with the state, and a word of the sentence on where it was found."""
    bare, other = renamed(state, ""), renamed({k: v + 1 for k, v in state.items()}, "")
    rest = {"step": 3, "lr": 0.1, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}
    return {
        "bare": (bare, "without unpickling"),
        "model": ({"model": bare, **rest}, "'model.'"),
        "state_dict": ({"state_dict": state, **rest}, "'state_dict.audio_tokenizer.'"),
        "encoder": ({"encoder": bare, "decoder": {"output": torch.ones(3)}}, "1 other tensors"),
        "distributed": (renamed(state, "module."), "'module.'"),
        "compiled": ({"model": renamed(state, "_orig_mod.module.")}, "_orig_mod"),
        "average": ({"model": other, "ema": {"decay": 0.999, "shadow": bare}}, "averaged"),
        "flat average": (renamed(state, "ema_model.") | renamed(other, "model."), "averaged"),
        "lightning": ({"state_dict": renamed(state, "net.encoder.")}, "'state_dict.net.encoder.'"),
    }


LAYOUTS = (
    "bare", "model", "state_dict", "encoder", "distributed", "compiled", "average",
    "flat average", "lightning",
)  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_encoder_is_found(name: str, release: Release, tmp_path: Path) -> None:
    state = encoder(release)
    value, word = layouts(state)[name]
    path = tmp_path / "encoder.pt"
    torch.save(value, path)
    found = read_encoder_tensors(path, release.params)
    assert all(torch.equal(found.load(key), tensor) for key, tensor in state.items())
    assert word in " ".join(found.notes)
    external = open_external_encoder(path, release)
    assert external.notes == found.notes and not external.has_provenance


def test_safetensors_with_a_prefix(release: Release, tmp_path: Path) -> None:
    state, path = encoder(release), tmp_path / "encoder.safetensors"
    save_file(renamed(state, "module.") | {"module.head": torch.ones(2)}, path)
    found = read_encoder_tensors(path, release.params)
    assert torch.equal(found.load(next(iter(state))), next(iter(state.values())))
    assert found.notes == ("Used the weights under 'module.', and left out 1 other tensors.",)


def test_every_command_reads_it(release: Release, tmp_path: Path) -> None:
    path = tmp_path / "best_encoder.pt"
    torch.save(layouts(encoder(release))["model"][0], path)
    assert find_encoder(release, path) == path
    codec = open_codec(release, path).require_encoder()
    state = renamed(encoder(release), "")
    assert all(torch.equal(tensor, state[name]) for name, tensor in codec.state_dict().items())


def test_what_is_not_one_encoder_is_refused(release: Release, tmp_path: Path) -> None:
    state, path = renamed(encoder(release), ""), tmp_path / "encoder.pt"
    part = dict(list(state.items())[:-2])
    for value, sentence in (
        ({"first": state, "second": state}, "2 encoders, under 'first.', 'second.'"),
        ({"model": part}, "not the whole encoder"),
        ({"optimizer": {"exp_avg": state}}, "no tensor of a codec encoder"),
        (state | {"projection": torch.ones(2)}, "'projection', which is not of a codec encoder"),
    ):
        torch.save(value, path)
        with pytest.raises(ReleaseError, match=sentence):
            read_encoder_tensors(path, release.params)
    torch.save(state, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ReleaseError, match=r"PyTorch before 1\.6"):
        read_encoder_tensors(path, release.params)
