"""`best_encoder.pt`: read as it is written, and nothing in it is ever run."""

import argparse
import io
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny_release import (
    random_entries,
    tiny_params,
    write_encoder,
    write_tiny_release,
)
from tests.release.test_presets import GADGETS, _gadgets, _zipped
from voxclone.errors import ReleaseError
from voxclone.release.encoder_file import open_external_encoder
from voxclone.release.release import Release
from voxclone.release.tensors import encoder_tensors
from voxclone.release.torch_checkpoint import is_torch_file, read_checkpoint

STATE = {
    "input_proj.g": torch.arange(4.0).view(4, 1, 1),
    "input_proj.v": torch.linspace(-1, 1, 24).view(4, 3, 2),
    "encoder_blocks.0.scale": torch.tensor([0.5, 1.5], dtype=torch.bfloat16),
    "encoder_blocks.0.half": torch.tensor([[1.0], [2.0]], dtype=torch.float16),
    "encoder_blocks.0.double": torch.tensor(2.5, dtype=torch.float64),
}


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


GOOD = entries(saved(STATE))
PICKLED = GOOD["archive/data.pkl"]


def check(path: Path, expected: dict[str, torch.Tensor]) -> None:
    found = read_checkpoint(path)
    assert list(found.tensors) == list(expected)
    for name, tensor in expected.items():
        loaded = found.load(name)
        assert loaded.dtype == tensor.dtype and torch.equal(loaded, tensor)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "best_encoder.pt"
    torch.save(STATE, path)
    assert is_torch_file(path)
    check(path, STATE)


def test_views_of_one_storage_and_ordered_mappings(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    views = OrderedDict(a=base[2:6], b=base.view(3, 4)[1:], c=base.view(1, 12)[:, :5], d=base)
    path = tmp_path / "views.pt"
    torch.save(views, path)
    check(path, views)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    torch.save(module.state_dict(), path)  # with `_metadata` beside the tensors
    check(path, module.state_dict())


def test_the_tensors_of_a_training_checkpoint(tmp_path: Path) -> None:
    encoder = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(encoder.parameters())
    encoder(torch.ones(3)).sum().backward()
    optimizer.step()
    path = tmp_path / "step.pt"
    torch.save(
        {
            "model": encoder.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": 3,
            "lr": 1e-4,
            "best": None,
            "betas": [0.9, 0.99],
            "rng": torch.get_rng_state(),
        },
        path,
    )
    found = read_checkpoint(path)
    assert torch.equal(found.load("model.weight"), encoder.weight)
    assert "optimizer.state.0.exp_avg" in found.tensors and "rng" not in found.tensors


def test_more_tensors_than_one_byte_can_number(tmp_path: Path) -> None:
    many = {f"encoder_blocks.{i}": torch.tensor([float(i)]) for i in range(300)}
    path = tmp_path / "many.pt"
    torch.save(many, path)
    check(path, many)


def test_an_encoder_of_the_communitys_layout(tmp_path: Path) -> None:
    release = Release.open(write_tiny_release(tmp_path / "release"))
    shapes = encoder_tensors(release.params)
    made = {each.name: each.make() for each in random_entries(shapes, 1, torch.float32)}
    path = tmp_path / "best_encoder.pt"
    torch.save({name.removeprefix("audio_tokenizer."): t for name, t in made.items()}, path)
    external = open_external_encoder(path, release)
    assert not external.has_provenance and external.metadata == {"origin": "best_encoder.pt"}
    assert all(torch.equal(external.load(name), tensor) for name, tensor in made.items())
    torch.save(made, path)  # with the release's prefix
    assert all(
        torch.equal(open_external_encoder(path, release).load(n), t) for n, t in made.items()
    )


def test_a_safetensors_file_is_none_of_torch(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "best_encoder.pt", tiny_params())
    assert not is_torch_file(path)
    for length in (0x04034B50, 0x0280):  # a header as long as a zip or a pickle begins
        path.write_bytes(length.to_bytes(8, "little") + b"{}")
        assert not is_torch_file(path)
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    assert is_torch_file(path)
    for missing in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(ReleaseError, match="cannot be read"):
            is_torch_file(missing)


def patched(old: bytes, new: bytes) -> bytes:
    assert old in PICKLED
    return _zipped(GOOD | {"archive/data.pkl": PICKLED.replace(old, new, 1)})


def without(name: str) -> dict[str, bytes]:
    return {key: value for key, value in GOOD.items() if key != name}


UNFIT: list[tuple[Callable[[], bytes], str]] = [
    (lambda: b"", "damaged or no zip"),
    (lambda: saved(STATE)[:-40], "damaged or no zip"),
    (lambda: saved(STATE, _use_new_zipfile_serialization=False), "PyTorch before 1.6"),
    (lambda: _zipped({}), "no single <root>/data.pkl"),
    (lambda: _zipped(without("archive/data/2")), "which has 0"),
    (lambda: _zipped(GOOD | {"archive/data/1": b"\0" * 92}), "which has 92"),
    (lambda: _zipped(GOOD | {"archive/data/1": b"\0" * 100}), "which has 100"),
    (lambda: _zipped(GOOD, ("archive/data/0",)), "compressed"),
    (lambda: _zipped(GOOD | {"archive/byteorder": b"bigger"}), "little-endian"),
    (lambda: _zipped(GOOD | {"archive/data.pkl": b"N" * 2**22 + b".."}), "data.pkl has 4194306"),
    (lambda: _zipped(GOOD | {"archive/data.pkl": b"garbage"}), "damaged"),
    (lambda: _zipped(GOOD | {"archive/data.pkl": PICKLED + b"x."}), "something else"),
    (lambda: _zipped(GOOD | {f"archive/{i}": b"" for i in range(17000)}), "too many entries"),
    (lambda: saved(STATE["input_proj.v"]), "something else"),
    (lambda: saved([STATE]), "something else"),
    (lambda: saved({"a": 3}), "no tensor of floating-point"),
    (lambda: saved({(1, 2): torch.ones(2)}), "a key that is no name"),
    (lambda: saved({"lr": 0.1}), "no tensor of floating-point"),
    (lambda: saved({"a": torch.arange(3)}), "no tensor of floating-point"),
    (lambda: saved({"a": torch.ones(2, dtype=torch.complex64)}), r"holds 'torch\.ComplexFlo"),
    (lambda: saved({"a": {1, 2}}), "instruction|asks for"),
    (lambda: saved({"args": argparse.Namespace(lr=1)}), r"asks for 'argparse\.Namespace'"),
    (lambda: saved({"a": torch.ones(3, 2).T}), "not contiguous"),
    (lambda: saved({"a": torch.ones(3, 4)[:, :2]}), "not contiguous"),
    (lambda: saved({"a": torch.nn.Parameter(torch.ones(2))}), r"asks for 'torch\._utils\._reb"),
    (lambda: saved(torch.nn.Linear(2, 2)), "asks for 'torch"),
    (lambda: saved(STATE, pickle_protocol=4), "instruction STACK_GLOBAL"),
    (lambda: patched(b"input_proj.g", b"input_proj.v"), "is there twice"),
    (lambda: patched(b"X\x07\x00\x00\x00storage", b"X\x07\x00\x00\x00storagf"), "another way"),
    (lambda: patched(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x00/"), "another way"),
    (lambda: patched(b"K\x00K\x04", b"K\x01K\x04"), "needs 20 bytes"),
    (lambda: patched(b"K\x00K\x04", b"J\xff\xff\xff\xffK\x04"), "impossible|data.pkl"),
    (lambda: _zipped(GOOD | {"archive/data.pkl": b"\x80\x02."}), "something else"),
    (lambda: _zipped(GOOD | {"archive/data.pkl": b"\x80\x02h\x07."}), "has not put down"),
    (lambda: _zipped(GOOD | {"archive/data.pkl": b"\x80\x02R."}), "has not put down"),
    (lambda: _zipped(GOOD | {"archive/data.pkl": b"\x80\x02t."}), "has not put down"),
    (lambda: _zipped(GOOD | {"archive/data.pkl": b"\x80\x02\x87."}), "has not put down"),
]


@pytest.mark.parametrize(("make", "sentence"), UNFIT)
def test_other_files_are_refused(tmp_path: Path, make: Callable[[], bytes], sentence: str) -> None:
    path = tmp_path / "best_encoder.pt"
    path.write_bytes(make())
    with pytest.raises(ReleaseError, match=sentence) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_mapping_within_itself(tmp_path: Path) -> None:
    path = tmp_path / "loop.pt"
    loop = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."
    path.write_bytes(_zipped(GOOD | {"archive/data.pkl": loop}))
    with pytest.raises(ReleaseError, match="nested too deep"):
        read_checkpoint(path)


def test_a_flipped_bit_in_a_tensor_is_found(tmp_path: Path) -> None:
    data = bytearray(saved(STATE))
    place = data.index(GOOD["archive/data/1"])
    data[place + 5] ^= 1
    path = tmp_path / "best_encoder.pt"
    path.write_bytes(data)
    found = read_checkpoint(path)
    assert torch.equal(found.load("input_proj.g"), STATE["input_proj.g"])
    with pytest.raises(ReleaseError, match="CRC"):
        found.load("input_proj.v")


@pytest.mark.parametrize("name", GADGETS)
def test_hostile_pickles_are_refused_and_not_run(tmp_path: Path, name: str) -> None:
    """The gadgets of the presets' tests, where they are shown to do harm when they are run."""
    mark, source, path = tmp_path / "mark.dat", tmp_path / "s.py", tmp_path / "best_encoder.pt"
    source.write_text(f"open({str(mark)!r}, 'w').close()")
    hostile = _gadgets(mark, source)[name]
    inside = pickle.dumps({"input_proj.g": hostile}, 2)
    for pickled in (
        *(pickle.dumps(hostile, protocol) for protocol in (0, 2, 4)),
        inside,
        pickle.dumps(hostile, 2)[:-1] + b"0" + PICKLED[2:],
        PICKLED[:-1] + pickle.dumps(hostile, 2)[2:-1] + b"b.",
        PICKLED + pickle.dumps(hostile, 2),
    ):
        path.write_bytes(_zipped(GOOD | {"archive/data.pkl": pickled}))
        with pytest.raises(ReleaseError, match="Nothing in it was run"):
            read_checkpoint(path)
        assert not mark.exists()


def test_reading_does_not_unpickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "best_encoder.pt"
    torch.save(STATE, path)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    check(path, STATE)


def test_mutated_files_give_sentences_only(tmp_path: Path) -> None:
    path, good, chance = tmp_path / "best_encoder.pt", _zipped(GOOD), random.Random(0)
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        for _ in range(chance.choice((1, 2, 10))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice((len(data), chance.randrange(len(data))))])
        try:
            found = read_checkpoint(path)
            for name in found.tensors:
                found.load(name)
        except ReleaseError:
            refused += 1
    assert refused > 200


def test_mutated_pickles_give_sentences_only(tmp_path: Path) -> None:
    path, chance = tmp_path / "best_encoder.pt", random.Random(1)
    refused = 0
    for _ in range(600):
        pickled = bytearray(PICKLED)
        for _ in range(chance.choice((1, 2, 10))):
            pickled[chance.randrange(len(pickled))] = chance.randrange(256)
        path.write_bytes(_zipped(GOOD | {"archive/data.pkl": bytes(pickled)}))
        try:
            read_checkpoint(path)
        except ReleaseError:
            refused += 1
    assert refused > 400
