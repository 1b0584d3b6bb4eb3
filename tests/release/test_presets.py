"""Voice files: what is written can be read by all, and nothing hostile is ever run."""

import io
import operator
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from voxclone.errors import VoiceError
from voxclone.release.presets import count_frames, read_preset, write_preset

DIM = 12
ROWS_ND = torch.arange(5 * DIM, dtype=torch.float32).view(5, DIM).sin().bfloat16()


def _saved(tensor: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensor, buffer, **options)
    return buffer.getvalue()


def _entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def _zipped(entries: dict[str, bytes], compressed: tuple[str, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            kind = zipfile.ZIP_DEFLATED if name in compressed else zipfile.ZIP_STORED
            archive.writestr(name, content, kind)
    return buffer.getvalue()


GOOD = _entries(_saved(ROWS_ND))


def _read_as_voxtral_tts_c(data: bytes) -> bytes:
    """The rule of voxtral-tts.c: a stored entry `archive/data/0`, found by its local header."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.getinfo("archive/data/0")
    assert info.compress_type == 0
    name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
    start = info.header_offset + 30 + name + extra
    return data[start : start + info.file_size]


@pytest.mark.parametrize(
    "tensor",
    [
        ROWS_ND,
        ROWS_ND[:1],
        ROWS_ND[1:4],
        ROWS_ND.repeat(3, 2)[::2, :DIM],
        ROWS_ND.T.contiguous().T,
        torch.nn.Parameter(ROWS_ND.clone()),
    ],
    ids=["plain", "one row", "view", "strided", "transposed", "parameter"],
)
def test_round_trip(tmp_path: Path, tensor: torch.Tensor) -> None:
    path = tmp_path / "anna.pt"
    write_preset(path, tensor)
    data = path.read_bytes()
    assert torch.equal(read_preset(path, DIM), tensor)
    assert count_frames(path, DIM) == len(tensor)
    loaded = torch.load(io.BytesIO(data), weights_only=True)
    assert type(loaded) is torch.Tensor
    assert torch.equal(loaded, tensor)
    assert (loaded.dtype, loaded.is_contiguous()) == (torch.bfloat16, True)
    raw = tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()
    assert _read_as_voxtral_tts_c(data) == raw
    assert [p.name for p in tmp_path.iterdir()] == ["anna.pt"]


def test_a_voice_of_the_real_size(tmp_path: Path) -> None:
    embedding_ND = torch.randn(218, 3072, generator=torch.Generator().manual_seed(0)).bfloat16()
    path = tmp_path / "neutral_female.pt"
    write_preset(path, embedding_ND)
    assert count_frames(path, 3072) == 218
    assert torch.equal(read_preset(path, 3072), embedding_ND)


def test_files_saved_to_a_path_have_another_root(tmp_path: Path) -> None:
    path = tmp_path / "voice_embed.pt"
    torch.save(ROWS_ND, path)
    assert "voice_embed/data/0" in _entries(path.read_bytes())
    assert torch.equal(read_preset(path, DIM), ROWS_ND)


def test_a_tensor_that_was_on_a_gpu_or_wanted_gradients(tmp_path: Path) -> None:
    path = tmp_path / "anna.pt"
    pickled = GOOD["archive/data.pkl"].replace(b"\x03\x00\x00\x00cpu", b"\x06\x00\x00\x00cuda:0")
    path.write_bytes(_zipped(GOOD | {"archive/data.pkl": pickled}))
    assert torch.equal(read_preset(path, DIM), ROWS_ND)
    path.write_bytes(_saved(ROWS_ND.clone().requires_grad_()))
    assert not read_preset(path, DIM).requires_grad


def test_the_tensor_read_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "anna.pt"
    write_preset(path, ROWS_ND)
    read_preset(path, DIM).zero_()
    assert torch.equal(read_preset(path, DIM), ROWS_ND)


@pytest.mark.parametrize("tensor", [ROWS_ND.float(), ROWS_ND[0], ROWS_ND[:0], ROWS_ND[None]])
def test_writer_refuses_what_is_no_voice(tmp_path: Path, tensor: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected bf16"):
        write_preset(tmp_path / "anna.pt", tensor)
    assert list(tmp_path.iterdir()) == []


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    embedding_ND = ROWS_ND.clone()
    embedding_ND[2, 3] = float("nan")
    with pytest.raises(VoiceError, match="not finite"):
        write_preset(tmp_path / "anna.pt", embedding_ND)
    (tmp_path / "anna.pt").write_bytes(_saved(embedding_ND))
    with pytest.raises(VoiceError, match="not finite"):
        read_preset(tmp_path / "anna.pt", DIM)


def _without(name: str) -> dict[str, bytes]:
    return {key: value for key, value in GOOD.items() if key != name}


def _twice() -> bytes:
    buffer = io.BytesIO(_zipped(GOOD))
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data/0", GOOD["archive/data/0"])
    return buffer.getvalue()


def _patched(old: bytes, new: bytes) -> bytes:
    pickled = GOOD["archive/data.pkl"]
    assert old in pickled
    return _zipped(GOOD | {"archive/data.pkl": pickled.replace(old, new)})


DATA = "archive/data/0"
UNFIT: list[tuple[Callable[[], bytes], str]] = [
    (lambda: b"", "damaged or no zip"),
    (lambda: b"not a zip at all", "damaged or no zip"),
    (lambda: _saved(ROWS_ND, _use_new_zipfile_serialization=False), "damaged or no zip"),
    (lambda: _zipped(GOOD)[:-30], "damaged or no zip"),
    (lambda: _zipped(GOOD)[:200], "damaged or no zip"),
    (lambda: _zipped(GOOD)[100:], "damaged|no single|storages|something else"),
    (lambda: _zipped({}), "no single <root>/data.pkl"),
    (lambda: _zipped(_without("archive/data.pkl")), "no single <root>/data.pkl"),
    (lambda: _zipped(_without(DATA)), "holds 0 storages"),
    (lambda: _zipped(GOOD | {"archive/data/1": b"\0\0"}), "holds 2 storages"),
    (lambda: _zipped(_without(DATA) | {"archive/data/1": GOOD[DATA]}), "instead of one, data/0"),
    (lambda: _zipped(GOOD | {"other/data.pkl": b"."}), "no single <root>/data.pkl"),
    (lambda: _zipped(GOOD | {"../evil": b"x"}), "no single <root>/data.pkl"),
    (lambda: _zipped(GOOD | {f"archive/{i}": b"" for i in range(100)}), "too many entries"),
    (_twice, "repeated"),
    (lambda: _zipped(GOOD, (DATA,)), "compressed"),
    (lambda: _zipped(GOOD, ("archive/data.pkl",)), "compressed"),
    (lambda: _zipped(GOOD, ("archive/byteorder",)), "compressed"),
    (lambda: _zipped(GOOD | {"archive/byteorder": b"bigger"}), "little-endian"),
    (lambda: _zipped(GOOD | {"archive/data.pkl": b"N" * 5000 + b"."}), "data.pkl has 5001 bytes"),
    (lambda: _zipped(GOOD | {"archive/data.pkl": b""}), "damaged"),
    (lambda: _zipped(GOOD | {"archive/data.pkl": b"garbage"}), "damaged"),
    (lambda: _zipped(GOOD | {DATA: GOOD[DATA][:-2]}), "holds 118 bytes"),
    (lambda: _zipped(GOOD | {DATA: GOOD[DATA] * 2}), "holds 240 bytes"),
    (lambda: _saved(ROWS_ND.float()), "its numbers are F32, not BF16"),
    (lambda: _saved(ROWS_ND.half()), "its numbers are F16, not BF16"),
    (lambda: _saved(ROWS_ND.view(torch.int16)), r"holds 'torch\.ShortStorage'"),
    (lambda: _saved(torch.nn.Parameter(ROWS_ND)), r"asks for 'torch\._utils\._rebuild_parameter'"),
    (lambda: _saved(ROWS_ND[1:3]), "is a view"),
    (lambda: _saved(ROWS_ND[:, :6]), "not contiguous|width of 6"),
    (lambda: _saved(ROWS_ND.view(DIM, 5).T), "not contiguous|width of"),
    (lambda: _saved(ROWS_ND.flatten()), "describes something else"),
    (lambda: _saved(ROWS_ND[None]), "describes something else"),
    (lambda: _saved({"embedding": ROWS_ND}), "describes something else"),
    (lambda: _saved([ROWS_ND]), "something else"),
    (lambda: _saved((ROWS_ND, ROWS_ND.clone())), "storages"),
    (lambda: _saved(ROWS_ND, pickle_protocol=4), "instruction STACK_GLOBAL"),
    (
        lambda: _saved(ROWS_ND.view(-1, DIM // 2)),
        "a width of 6, but the release has one of 12",
    ),
    (lambda: _saved(ROWS_ND[:0].clone()), "has 0 frames"),
    (lambda: _saved(torch.zeros(5000, DIM, dtype=torch.bfloat16)), "has 5000 frames"),
    (lambda: _patched(b"K\x05K\x0c\x86", b"K\x04K\x0c\x86"), "is a view"),
    (
        lambda: _patched(b"K\x05K\x0c\x86", b"J\xfb\xff\xff\xffK\x0c\x86"),
        "shape of a tensor is impossible",
    ),
    (lambda: _patched(b"K\x00K\x05", b"K\x01K\x05"), "is a view"),
    (lambda: _patched(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x001"), "describes something else"),
    (lambda: _patched(b"Rq\x0b.", b"Rq\x0b0N."), "instruction POP"),
    (lambda: _zipped(GOOD | {"archive/data.pkl": GOOD["archive/data.pkl"] + b"x."}), "something"),
]


@pytest.mark.parametrize(("make", "sentence"), UNFIT)
def test_files_that_are_no_voice_are_refused(
    tmp_path: Path, make: Callable[[], bytes], sentence: str
) -> None:
    path = tmp_path / "anna.pt"
    path.write_bytes(make())
    for read in (read_preset, count_frames):
        with pytest.raises(VoiceError, match=sentence) as caught:
            read(path, DIM)
        assert str(path) in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="there is no such file"):
        read_preset(tmp_path / "none.pt", DIM)
    with pytest.raises(VoiceError, match="it is a directory"):
        read_preset(tmp_path, DIM)


class _Call:
    """Pickles as a call, which unpickling carries out."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def _gadgets(mark: Path, source: Path) -> dict[str, object]:
    """Objects that make the file `mark` when they are unpickled, each in its own way."""
    import builtins
    import code
    import codecs
    import dbm.dumb
    import logging
    import os
    import runpy
    import shutil
    import sqlite3
    import subprocess
    import timeit

    program = f"open({str(mark)!r}, 'w').close()"
    compiled = _Call(compile, program, "x", "exec")
    return {
        "os.system": _Call(os.system, f"touch {mark}"),
        "eval": _Call(eval, program),
        "exec": _Call(exec, program),
        "exec of compiled code": _Call(exec, compiled),
        "open": _Call(open, str(mark), "w"),
        "io.FileIO": _Call(io.FileIO, str(mark), "w"),
        "codecs.open": _Call(codecs.open, str(mark), "w"),
        "os.open": _Call(os.open, str(mark), os.O_CREAT | os.O_WRONLY),
        "os.mkdir": _Call(os.mkdir, str(mark)),
        "os.symlink": _Call(os.symlink, str(source), str(mark)),
        "os.link": _Call(os.link, str(source), str(mark)),
        "subprocess.call": _Call(subprocess.call, ["touch", str(mark)]),
        "subprocess.check_output": _Call(subprocess.check_output, ["touch", str(mark)]),
        "shutil.copy": _Call(shutil.copy, str(source), str(mark)),
        "runpy.run_path": _Call(runpy.run_path, str(source)),
        "timeit.timeit": _Call(timeit.timeit, program, "pass", timeit.default_timer, 1),
        "zipfile.ZipFile": _Call(zipfile.ZipFile, str(mark), "w"),
        "logging.FileHandler": _Call(logging.FileHandler, str(mark)),
        "sqlite3.connect": _Call(sqlite3.connect, str(mark)),
        "dbm.dumb": _Call(dbm.dumb.open, str(mark).removesuffix(".dat"), "n"),
        "methodcaller": _Call(operator.methodcaller("touch"), mark),
        "partial": _Call(partial(open, str(mark), "w")),
        "getattr": _Call(getattr(builtins, "list"), _Call(map, eval, [program])),  # noqa: B009
        "interpreter": _Call(
            operator.methodcaller("runsource", program), code.InteractiveInterpreter()
        ),
    }


@pytest.fixture
def playground(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    mark, source = tmp_path / "mark.dat", tmp_path / "source.py"
    source.write_text(f"open({str(mark)!r}, 'w').close()")
    yield mark, source


GADGETS = list(_gadgets(Path("x.dat"), Path("y")))


@pytest.mark.parametrize("name", GADGETS)
def test_hostile_pickles_are_refused_and_not_run(
    playground: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    mark, source = playground
    hostile = [pickle.dumps(_gadgets(mark, source)[name], protocol) for protocol in (0, 2, 4)]
    good = GOOD["archive/data.pkl"]
    hidden = hostile[1][:-1] + b"0" + good[2:]  # run, dropped, and then a voice as it should be
    after = good + hostile[1]
    assert len(GADGETS) >= 20
    for pickled in [*hostile, hidden, after]:
        path = tmp_path / "voice.pt"
        path.write_bytes(_zipped(GOOD | {"archive/data.pkl": pickled}))
        for read in (read_preset, count_frames):
            with pytest.raises(VoiceError, match=r"asks for|Nothing in it was run"):
                read(path, DIM)
        assert not mark.exists()
    _is_hostile(hostile[1], mark)


def _is_hostile(pickled: bytes, mark: Path) -> None:
    """Without this the test above could pass with gadgets that do nothing."""
    try:
        result = pickle.loads(pickled)
    finally:
        assert mark.exists()
    if hasattr(result, "close"):
        result.close()


@pytest.mark.parametrize(
    "pickled",
    [
        b"(S'touch /tmp/never'\nios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02cos\nsystem\n.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(cos\nsystem\ntR.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.",
        b"Ppersistent\n.",
    ],
    ids=["INST", "STACK_GLOBAL", "EXT1", "GLOBAL", "argument", "BUILD", "PERSID"],
)
def test_other_ways_to_name_code_are_refused(tmp_path: Path, pickled: bytes) -> None:
    path = tmp_path / "voice.pt"
    path.write_bytes(_zipped(GOOD | {"archive/data.pkl": pickled}))
    with pytest.raises(VoiceError, match="Nothing in it was run"):
        read_preset(path, DIM)


def test_reading_does_not_unpickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "anna.pt"
    write_preset(path, ROWS_ND)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    assert torch.equal(read_preset(path, DIM), ROWS_ND)


def test_mutated_files_give_sentences_only(tmp_path: Path) -> None:
    path = tmp_path / "anna.pt"
    good = _zipped(GOOD)
    chance = random.Random(0)
    refused = 0
    for _ in range(600):
        data = bytearray(good)
        for _ in range(chance.choice((1, 2, 10))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice((len(data), chance.randrange(len(data))))])
        try:
            assert read_preset(path, DIM).shape == ROWS_ND.shape
        except VoiceError:
            refused += 1
    assert refused > 400
