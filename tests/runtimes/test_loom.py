"""Voices of loom.cpp: our GGUF is that of the gguf package, and a damaged one gets a sentence."""

import hashlib
import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.runtimes.conftest import Example
from voxclone.errors import VoiceError
from voxclone.runtimes.export import export_voice
from voxclone.runtimes.gguf import read_gguf, write_gguf
from voxclone.runtimes.loom import fingerprint
from voxclone.runtimes.table import RUNTIMES
from voxclone.runtimes.verify import verify

LOOM = RUNTIMES["loom.cpp"]


@pytest.fixture
def exported(tiny: Example, tmp_path: Path) -> Path:
    path = tmp_path / "dora.gguf"
    export_voice(tiny.voice, LOOM, tiny.release, path, name="dora")
    return path


def test_the_keys_are_those_of_loom(exported: Path, tiny: Example) -> None:
    file = read_gguf(exported)
    rows, width = tiny.voice.embedding_ND.shape
    assert file.name == "voice" and file.tensor.shape == (rows * width,)
    assert file.values["general.architecture"] == "loom-voice"
    voice = {k.removeprefix("loom.voice."): v for k, v in file.values.items() if "loom" in k}
    assert voice["architecture"] == "voxtral_tts" and voice["n_rows"] == rows
    assert voice["name"] == "dora" and voice["license"] == "CC-BY-NC-4.0"
    assert voice["compat"] == fingerprint(tiny.release) and len(voice["compat"]) == 32
    assert "consent: " in voice["origin"]


def test_the_fingerprint_is_that_of_looms_exporter(tiny: Example) -> None:
    """Its recipe, applied to the bytes of the file itself."""
    (path,) = tiny.release.path.glob("consolidated*.safetensors")
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    digest = hashlib.sha256()
    names = [n for n in header if n.startswith(("layers.", "norm.", "mm_audio_embeddings."))]
    for name in sorted(names):
        entry = header[name]
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        digest.update(f"{name}|{entry['dtype']}|{entry['shape']}|".encode() + data[begin:end])
    assert fingerprint(tiny.release) == digest.hexdigest()[:32]


def test_the_gguf_package_reads_and_writes_the_same(exported: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    ours = read_gguf(exported)
    reader = gguf.GGUFReader(exported)
    (tensor,) = reader.tensors
    assert tensor.name == "voice" and np.array_equal(tensor.data, ours.tensor)
    assert reader.get_field("loom.voice.name").contents() == "dora"
    assert reader.get_field("loom.voice.n_rows").contents() == ours.values["loom.voice.n_rows"]
    theirs = tmp_path / "theirs.gguf"
    writer = gguf.GGUFWriter(str(theirs), "loom-voice")
    writer.add_string("loom.voice.name", "d\u00f6ra")
    writer.add_uint32("loom.voice.n_rows", 7)
    writer.add_tensor("voice", ours.tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = read_gguf(theirs)
    assert read.values["loom.voice.name"] == "d\u00f6ra" and read.values["loom.voice.n_rows"] == 7
    assert np.array_equal(read.tensor, ours.tensor)


def test_a_voice_of_other_weights_is_a_problem(exported: Path, tiny: Example) -> None:
    compat = fingerprint(tiny.release)
    exported.write_bytes(exported.read_bytes().replace(compat.encode(), b"0" * 32))
    (reading,) = verify(LOOM, exported, tiny.release)
    assert not reading.usable and "other weights" in reading.problems[0]


def test_other_content_is_a_problem(tiny: Example, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    values = {"general.architecture": "loom-voice", "loom.voice.architecture": "voxtral_tts"}
    for name, keys in (("voice", values), ("voice", values | {"loom.voice.n_rows": 3}), ("v", {})):
        write_gguf(path, keys, name, np.zeros(10, np.float32))
        (reading,) = verify(LOOM, path, tiny.release)
        assert not reading.usable and reading.frames is None


def test_damaged_files_get_a_sentence(exported: Path) -> None:
    data, draws = exported.read_bytes()[:2000], random.Random(0)
    for number in range(1000):
        damaged = bytearray(data)
        for _ in range(draws.randint(1, 6)):
            damaged[draws.randrange(400)] = draws.randrange(256)
        exported.write_bytes(damaged[: draws.randrange(len(data))] if number % 5 == 0 else damaged)
        try:
            read_gguf(exported)
        except VoiceError as error:
            assert str(error).endswith(".") and "\n" not in str(error)


def test_rows_survive_bit_for_bit(exported: Path, tiny: Example) -> None:
    rows = torch.from_numpy(read_gguf(exported).tensor).view(tiny.voice.embedding_ND.shape)
    assert torch.equal(rows.to(torch.bfloat16), tiny.voice.embedding_ND)
