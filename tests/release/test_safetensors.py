"""Safetensors files: a strict header, lazy loading, and a writer of one tensor at a time."""

import json
import os
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.tiny_release import random_entries
from voxclone.errors import ReleaseError
from voxclone.release.params import read_params
from voxclone.release.safetensors import (
    HEADER_LIMIT,
    TensorFiles,
    find_shards,
    load_tensors,
    read_header,
)
from voxclone.release.safetensors_writer import Entry, write_safetensors
from voxclone.release.tekken import read_tekken
from voxclone.release.torch_checkpoint import read_checkpoint

TENSORS = {
    "a": torch.arange(6, dtype=torch.bfloat16).view(2, 3),
    "b.weight": torch.ones(5),
    "c": torch.tensor(7, dtype=torch.int64),
    "empty": torch.zeros(0, 4),
}


def _entries(tensors: dict[str, torch.Tensor]) -> list[Entry]:
    return [Entry(n, t.dtype, tuple(t.shape), lambda t=t: t) for n, t in tensors.items()]  # type: ignore[misc]


def test_header_of_a_file_by_the_library(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path, metadata={"made": "by a test"})
    header = read_header(path)
    assert header.metadata == {"made": "by a test"}
    assert header.size == path.stat().st_size
    assert {n: (t.dtype, t.shape) for n, t in header.tensors.items()} == {
        "a": ("BF16", (2, 3)),
        "b.weight": ("F32", (5,)),
        "c": ("I64", ()),
        "empty": ("F32", (0, 4)),
    }
    data = path.read_bytes()
    b = header.tensors["b.weight"]
    assert data[b.start : b.stop] == b"\x00\x00\x80\x3f" * 5
    assert (b.values, header.tensors["c"].values) == (5, 1)


def test_writer_and_library_agree(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, _entries(TENSORS), {"made": "here"})
    loaded = load_file(path)
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[n], t) and loaded[n].dtype == t.dtype for n, t in TENSORS.items())
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    for tensor in read_header(path).tensors.values():
        assert tensor.start % torch.int64.itemsize == 0 or tensor.dtype != "I64"


def test_writer_holds_one_tensor(tmp_path: Path) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def make() -> torch.Tensor:
        assert sum(reference() is not None for reference in alive) <= 1
        tensor = torch.zeros(1000)
        alive.append(weakref.ref(tensor))
        return tensor

    entries = [Entry(f"t{i}", torch.float32, (1000,), make) for i in range(20)]
    write_safetensors(tmp_path / "x.safetensors", entries)
    assert len(alive) == 20


@pytest.mark.parametrize("wrong", [torch.zeros(3), torch.zeros(2, dtype=torch.bfloat16)])
def test_writer_leaves_nothing_behind_when_it_fails(tmp_path: Path, wrong: torch.Tensor) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, _entries(TENSORS))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="was announced as"):
        write_safetensors(path, [Entry("x", torch.float32, (2,), lambda: wrong)])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_writer_refuses_a_name_given_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="given twice"):
        write_safetensors(tmp_path / "x.safetensors", _entries(TENSORS) * 2)


def _raw(header: Any, data: int = 0, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(data)


def _entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    listed = [list(value) if isinstance(value, tuple) else value for value in (shape, offsets)]
    return {"dtype": dtype, "shape": listed[0], "data_offsets": listed[1]}


DAMAGED: list[tuple[bytes, str]] = [
    (b"", "has 0 bytes and claims a header of 0"),
    (b"\x01\x00", "cut short"),
    (_raw({}, length=500), "claims a header of 500: it is cut short"),
    (_raw({}, length=HEADER_LIMIT + 1), "cut short"),
    (_raw({}, length=2**63), "cut short"),
    (_raw(b"{nonsense"), "header of .* is damaged"),
    (_raw(b"\xff\xfe\x00"), "header of .* is damaged"),
    (_raw(b"[" * 200_000), "header of .* is damaged"),
    (_raw([]), "is no mapping"),
    (_raw({"__metadata__": {"a": 1}}), "metadata"),
    (_raw({"__metadata__": 3}), "metadata"),
    (_raw(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":0}'), "occurs twice"),
    (_raw({"a": 1}, 8), "entry 'a' is damaged"),
    (_raw({"a": {"dtype": "F32"}}, 8), "entry 'a' is damaged"),
    (_raw({"a": _entry() | {"more": 1}}, 8), "entry 'a' is damaged"),
    (_raw({"a": _entry("F33")}, 8), "'F33', which is not known"),
    (_raw({"a": _entry(4)}, 8), "which is not known"),
    (_raw({"a": _entry(["F32"])}, 8), "which is not known"),
    (_raw({"a": _entry(shape=2)}, 8), "entry 'a' is damaged"),
    (_raw({"a": _entry(shape=(-2,))}, 8), "entry 'a' is damaged"),
    (_raw({"a": _entry(shape=(True, 2))}, 8), "entry 'a' is damaged"),
    (_raw({"a": _entry(shape=(2.0,))}, 8), "entry 'a' is damaged"),
    (_raw({"a": _entry(shape=(10**30,))}, 8), "header of .* is damaged"),
    (_raw({"a": _entry(shape=(1,) * 99 + (2,))}, 8), "entry 'a' is damaged"),
    (_raw({"a": _entry(offsets=(0, 8, 8))}, 8), "entry 'a' is damaged"),
    (_raw({"a": _entry(offsets=(8, 0))}, 8), "-8 bytes"),
    (_raw({"a": _entry(offsets=(0, 12))}, 12), "'a' has 12 bytes, but its shape"),
    (_raw({"a": _entry(offsets=(4, 12))}, 12), "leave a gap"),
    (_raw({"a": _entry(), "b": _entry(offsets=(4, 12))}, 12), "overlap"),
    (_raw({"a": _entry(), "b": _entry()}, 8), "overlap"),
    (_raw({"a": _entry()}, 3), "5 bytes are missing"),
    (_raw({"a": _entry()}, 9), "1 are too many"),
]


@pytest.mark.parametrize(("content", "sentence"), DAMAGED)
def test_damaged_headers_are_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ReleaseError, match=sentence) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def test_mutated_files_give_sentences_only(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, _entries(TENSORS))
    good = path.read_bytes()
    chance = random.Random(0)
    refused = 0
    for _ in range(600):
        data = bytearray(good)
        for _ in range(chance.choice((1, 2, 8))):
            data[chance.randrange(len(data) * 3 // 4)] = chance.randrange(256)
        path.write_bytes(data[: chance.choice((len(data), chance.randrange(len(data))))])
        try:
            read_header(path)
        except ReleaseError:
            refused += 1
    assert refused > 400


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="cannot be read"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(ReleaseError, match="cannot be read"):
        read_header(tmp_path)
    with pytest.raises(ReleaseError, match="There is no consolidated"):
        find_shards(tmp_path)


def test_tensors_are_loaded_by_name_and_by_prefix(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "consolidated-1.safetensors", _entries(TENSORS))
    more = {"a.x": torch.ones(2), "z": torch.zeros(1)}
    write_safetensors(tmp_path / "consolidated-2.safetensors", _entries(more))
    write_safetensors(tmp_path / "other.safetensors", _entries({"other": torch.zeros(1)}))
    files = find_shards(tmp_path)
    assert files.tensors.keys() == TENSORS.keys() | more.keys()
    assert torch.equal(files.load("a"), TENSORS["a"])
    assert files.load("a").dtype == torch.bfloat16
    assert files.load("a", torch.float32).dtype == torch.float32
    with pytest.raises(ReleaseError, match=r"no tensor 'b.weigth'.*nearest name is 'b.weight'"):
        files.load("b.weigth")


def test_a_name_in_two_files_is_refused_unless_the_index_decides(tmp_path: Path) -> None:
    first = {"x": torch.zeros(2), "y": torch.zeros(1)}
    second = {"x": torch.ones(2), "z": torch.zeros(1)}
    write_safetensors(tmp_path / "consolidated-1.safetensors", _entries(first))
    write_safetensors(tmp_path / "consolidated-2.safetensors", _entries(second))
    with pytest.raises(ReleaseError, match="'x' is in both"):
        find_shards(tmp_path)
    index = {"x": "consolidated-2.safetensors", "y": "consolidated-1.safetensors"}
    _write_index(tmp_path, index)
    assert find_shards(tmp_path).load("x").tolist() == [1.0, 1.0]


def _write_index(folder: Path, index: Any) -> None:
    value = {"metadata": {}, "weight_map": index}
    (folder / "consolidated.safetensors.index.json").write_text(json.dumps(value))


INDICES: list[tuple[Callable[[Path], object], str]] = [
    (lambda f: _write_index(f, {"a": "gone.safetensors"}), "gone.safetensors, which is missing"),
    (lambda f: _write_index(f, {"new": "consolidated-1.safetensors"}), "says that 'new' is in"),
    (lambda f: _write_index(f, {"a": "../../secret.safetensors"}), "outside its own folder"),
    (lambda f: _write_index(f, {"a": 3}), "'weight_map.a' is 3"),
    (lambda f: _write_index(f, ["a"]), "'weight_map' is "),
    (lambda f: (f / "consolidated.safetensors.index.json").write_text("{"), "is not valid JSON"),
    (
        lambda f: (f / "consolidated.safetensors.index.json").write_text("{}"),
        "'weight_map' is missing",
    ),
]


@pytest.mark.parametrize(("write", "sentence"), INDICES)
def test_bad_indices_are_refused(
    tmp_path: Path, write: Callable[[Path], object], sentence: str
) -> None:
    write_safetensors(tmp_path / "consolidated-1.safetensors", _entries(TENSORS))
    write(tmp_path)
    with pytest.raises(ReleaseError, match=sentence):
        find_shards(tmp_path)


def test_a_file_that_vanishes_after_opening(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, random_entries({"a": (3,)}))
    files = TensorFiles([read_header(path)])
    path.unlink()
    with pytest.raises(ReleaseError, match="cannot be read"):
        files.load("a")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_refused_when_they_are_read(
    tmp_path: Path, dtype: torch.dtype, value: float
) -> None:
    tensor = torch.randn(300, 7).to(dtype)
    tensor[123, 4] = value
    save_file({"a": tensor, "b": torch.ones(3)}, tmp_path / "x.safetensors")
    files = TensorFiles([read_header(tmp_path / "x.safetensors")])
    assert files.load("b").sum() == 3
    with pytest.raises(ReleaseError, match="'a' has values that are not finite"):
        files.load("a")
    torch.save({"a": tensor}, tmp_path / "x.pt")
    with pytest.raises(ReleaseError, match="'a' has values that are not finite"):
        read_checkpoint(tmp_path / "x.pt").load("a")


def test_great_numbers_are_finite(tmp_path: Path) -> None:
    tensor = torch.full((100,), 3e38)
    save_file({"a": tensor}, tmp_path / "x.safetensors")
    assert torch.equal(load_tensors(tmp_path / "x.safetensors")["a"], tensor)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (read_header, read_checkpoint, read_params, read_tekken):
        with pytest.raises(ReleaseError, match="no ordinary file"):
            read(tmp_path / "pipe")  # type: ignore[operator]
