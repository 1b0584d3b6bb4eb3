"""Damaged and hostile files of every kind that is not sound: nothing but the project's own errors,
nothing slow, nothing written, little memory."""

import json
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.fuzz.mutations import mutate
from tests.helpers.memory import needs_proc, peak_memory, resident_memory
from tests.voice import hostile
from voxclone import checkpoint
from voxclone.cli.report import present, read_baseline
from voxclone.config import load_settings
from voxclone.data.corpus import pack
from voxclone.data.lhotse import items_of, manifests_in
from voxclone.data.manifest import Manifest, read_manifest
from voxclone.data.pairs import read_pairs, save_pairs
from voxclone.data.validate import validate
from voxclone.errors import VoxcloneError, printable
from voxclone.evaluate.protocols import read_minimax, read_seed_tts
from voxclone.io import hash_file
from voxclone.release.encoder_file import codebook_hash, open_external_encoder
from voxclone.release.params import read_params
from voxclone.release.presets import count_frames, read_preset, write_preset
from voxclone.release.release import Release, load_codec
from voxclone.release.safetensors import TensorFiles, find_shards, read_header
from voxclone.release.tekken import read_tekken, tekken_problems, voice_counts
from voxclone.train.encoder_config import EncoderConfig
from voxclone.voice.file import Voice
from voxclone.voice.store import list_voices

MAX_SECONDS = 5.0
MAX_GROWTH = 300e6


@dataclass(frozen=True)
class Target:
    """Files of a good folder of which one is damaged at a time, and how they are read."""

    files: tuple[str, ...]
    read: Callable[[Path], object]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, tiny_release: Release, manifest: Path) -> Path:
    """A folder with a good file of every kind."""
    folder = tmp_path_factory.mktemp("good")
    shutil.copytree(tiny_release.path, folder / "release")
    shutil.copytree(manifest.parent, folder / "speech")
    pack(read_manifest(folder / "speech" / "manifest.jsonl"), folder / "packed")
    wave = folder / "speech" / "ada-0.flac"
    (folder / "meta.lst").write_text("".join(f"{n}|Hi.|{wave}|We go.\n" for n in range(5)))
    (folder / "minimax" / "text").mkdir(parents=True)
    (folder / "minimax" / "speaker" / "english" / "ada").mkdir(parents=True)
    shutil.copy(wave, folder / "minimax" / "speaker" / "english" / "ada" / "a.flac")
    (folder / "minimax" / "text" / "english.txt").write_text("ada|We go.\nada|No more.\n")
    header, data = hostile.built()
    (folder / "a.voice.safetensors").write_bytes(hostile.packed(hostile.text(header), data))
    width = tiny_release.params.lm.dim
    write_preset(folder / "preset.pt", torch.randn(9, width).to(torch.bfloat16))
    _write_encoders(folder, tiny_release)
    checkpoint.save(
        folder / "run", checkpoint.Checkpoint(3, {"a": torch.ones(3)}, {"best": [1, 0.5]})
    )
    report = validate(folder / "speech" / "manifest.jsonl")
    for name in ("report.json", "mine.json"):
        (folder / name).write_text(json.dumps(report))
    (folder / "config.yaml").write_text(
        "base: below.yaml\nrun:\n  steps: 10\n  seed: 1\nreal_batch: 3\n"
    )
    (folder / "below.yaml").write_text("run:\n  steps: 20\n")
    _write_lhotse(folder / "lhotse", wave)
    _write_pairs(folder / "pairs", tiny_release)
    return folder


def _write_encoders(folder: Path, release: Release) -> None:
    state = load_codec(release).require_encoder().state_dict()
    from safetensors.torch import save_file

    save_file(state, folder / "encoder.safetensors", {"format": "another"})
    torch.save(dict(state), folder / "encoder.pt")


def _write_lhotse(folder: Path, wave: Path) -> None:
    folder.mkdir()
    source = {"type": "file", "channels": [0], "source": str(wave)}
    recording = {"id": "r", "sources": [source], "sampling_rate": 24000, "duration": 1.0}
    supervision = {"id": "s", "recording_id": "r", "start": 0.1, "duration": 0.5, "channel": 0,
                   "speaker": "ada", "text": "we go", "language": "English"}  # fmt: skip
    cut = {"id": "c", "type": "MonoCut", "start": 0.0, "duration": 1.0, "channel": 0,
           "supervisions": [supervision | {"id": "t"}], "recording": recording}  # fmt: skip
    for name, value in (("recordings", recording), ("supervisions", supervision), ("cuts", cut)):
        (folder / f"toy_{name}_train.jsonl").write_text(json.dumps(value))


def _write_pairs(folder: Path, release: Release) -> None:
    folder.mkdir()
    books = release.params.audio.num_codebooks
    save_pairs([torch.zeros(books, 20, dtype=torch.int16)], folder / "batch-00000.safetensors")
    facts = {"schema": "voxclone.pairs/2", "book": codebook_hash(release), "texts": "0",
             "settings": {}}  # fmt: skip
    (folder / "pairs.json").write_text(json.dumps(facts))


def _release(folder: Path) -> Release:
    return Release.open(folder / "release")


def _read_manifest(folder: Path) -> None:
    path = folder / "speech" / "manifest.jsonl"
    validate(path, headers=False)
    lines = Manifest(path)
    assert [clip.id for clip in lines[:]] == [clip.id for clip in read_manifest(path)]


def _read_minimax(folder: Path) -> None:
    read_minimax(folder / "minimax", "english")


def _read_params(folder: Path) -> None:
    read_params(folder / "release" / "params.json")


def _read_counts(folder: Path) -> None:
    assert isinstance(_release(folder).voice_counts, dict)


def _read_tekken(folder: Path) -> None:
    tekken = read_tekken(folder / "release" / "tekken.json")
    voice_counts(tekken)
    tekken_problems(tekken, _release(folder).params)


def _read_preset(folder: Path) -> None:
    width = _release(folder).params.lm.dim
    assert count_frames(folder / "preset.pt", width) == len(
        read_preset(folder / "preset.pt", width)
    )


def _read_encoder(path: Path, folder: Path) -> None:
    encoder = open_external_encoder(path, _release(folder))
    for name in encoder.shapes:
        encoder.load(name)


def _read_tensors(folder: Path) -> None:
    header = read_header(folder / "encoder.safetensors")
    TensorFiles([header]).load_many(list(header.tensors))


def _read_checkpoint(folder: Path) -> None:
    """Also where the manifest agrees with what was damaged."""
    step = folder / "run" / "step-0000003"
    try:
        checkpoint.load(step)
    except VoxcloneError:
        listed = step / checkpoint.MANIFEST
        files = {
            name: {"bytes": (step / name).stat().st_size, "sha256": hash_file(step / name)}
            for name in (checkpoint.TENSORS, checkpoint.VALUES)
        }
        before = listed.read_bytes()
        listed.write_text(json.dumps({"step": 3, "files": files}))
        try:
            checkpoint.load(step)
        finally:
            listed.write_bytes(before)


def _read_report(folder: Path) -> None:
    from rich.console import Console

    mine = json.loads((folder / "mine.json").read_text())
    before = read_baseline(folder / "report.json", mine["schema"])
    present(mine, before, list, None, Console(quiet=True))


def _read_cards(folder: Path) -> None:
    from voxclone.cli.inject import _markdown

    _markdown(folder / "report.json")


def _pack(folder: Path) -> None:
    pack(read_manifest(folder / "speech" / "manifest.jsonl"), folder / "packed")


TARGETS = {
    "manifest": Target(("speech/manifest.jsonl",), _read_manifest),
    "list": Target(("meta.lst",), lambda f: read_seed_tts(f / "meta.lst")),
    "minimax": Target(("minimax/text/english.txt",), _read_minimax),
    "lhotse": Target(
        ("lhotse/toy_recordings_train.jsonl", "lhotse/toy_supervisions_train.jsonl",
         "lhotse/toy_cuts_train.jsonl"),
        lambda f: list(items_of(manifests_in(f / "lhotse"))),
    ),
    "tekken": Target(("release/tekken.json",), _read_tekken),
    "params": Target(("release/params.json",), _read_params),
    "release": Target(("release/params.json", "release/tekken.json"), _read_counts),
    "shards": Target(("release/consolidated.safetensors",), lambda f: find_shards(f / "release")),
    "preset": Target(("preset.pt",), _read_preset),
    "voice": Target(("a.voice.safetensors",), lambda f: Voice.load(f / "a.voice.safetensors")),
    "voices": Target(("a.voice.safetensors",), list_voices),
    "encoder": Target(
        ("encoder.safetensors",), lambda f: _read_encoder(f / "encoder.safetensors", f)
    ),
    "encoder of torch": Target(("encoder.pt",), lambda f: _read_encoder(f / "encoder.pt", f)),
    "tensors": Target(("encoder.safetensors",), _read_tensors),
    "checkpoint": Target(
        tuple(f"run/step-0000003/{name}" for name in ("manifest.json", "values.json",
                                                       "state.safetensors")),
        _read_checkpoint,
    ),
    "report": Target(("report.json",), _read_report),
    "report on a card": Target(("report.json",), _read_cards),
    "settings": Target(
        ("config.yaml", "below.yaml"), lambda f: load_settings(EncoderConfig, f / "config.yaml")
    ),
    "pairs": Target(
        ("pairs/pairs.json", "pairs/batch-00000.safetensors"),
        lambda f: read_pairs(f / "pairs", _release(f)),
    ),
    "packed": Target(("packed/index.json", "packed/left_out.json"), _pack),
}  # fmt: skip


@needs_proc
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_get_a_sentence(name: str, count: int, good: Path, tmp_path: Path) -> None:
    folder, target = tmp_path / "case", TARGETS[name]
    shutil.copytree(good, folder)
    target.read(folder)  # else every case would be refused for the same reason
    before = contents(folder)
    wholes = {file: (folder / file).read_bytes() for file in target.files}
    peak_memory()
    at_first = resident_memory()
    refused = 0
    for number in range(count):
        file = target.files[number % len(target.files)]
        whole = wholes[file]
        (folder / file).write_bytes(mutate(whole, random.Random(f"{name} {number}")))
        begun = time.monotonic()
        try:
            target.read(folder)
        except VoxcloneError as error:
            refused += 1
            message = str(error)
            assert message == printable(message) and len(message) < 2000, (number, message)
        except Exception as error:
            raise AssertionError(f"case {number} of {name}: {error!r}") from error
        assert time.monotonic() - begun < MAX_SECONDS, number
        for each, content in wholes.items():  # a packed corpus is packed anew where it is damaged
            (folder / each).write_bytes(content)
    assert contents(folder) == before
    assert peak_memory() - at_first < MAX_GROWTH
    assert refused >= count / 10 or name == "voices", refused  # a list names the problems


def contents(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
