"""Prepared speech, read from its files: the same crops as packed, and a million clips."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from voxclone.audio.files import read_wave
from voxclone.data.corpus import Corpus, Subset
from voxclone.data.manifest import Manifest, read_manifest
from voxclone.data.prepared import PreparedCorpus
from voxclone.errors import AudioError, ConfigError
from voxclone.rng import step_generator


@pytest.fixture(scope="module")
def prepared(manifest: Path) -> Path:
    """The manifest of the other tests with the number of samples of each clip."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row in rows:
        row["samples"] = len(read_wave(manifest.parent / row["path"]))
    path = manifest.with_name("prepared.jsonl")
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_a_manifest_gives_the_clips_that_are_in_it(manifest: Path, prepared: Path) -> None:
    listed, opened = read_manifest(manifest), Manifest(manifest)
    assert list(opened) == listed and opened[-1] == listed[-1] and opened[2:4] == listed[2:4]
    assert not opened.prepared and Manifest(prepared).prepared
    chosen = opened.select(split="train", licenses=["CC0-1.0", "none"])
    assert chosen.tolist() == [n for n, clip in enumerate(listed) if clip.split == "train"]
    assert not len(opened.select(licenses=["CC-BY-4.0"])) and not len(opened.select(split="test"))
    with pytest.raises(IndexError):
        opened[len(listed)]


def test_older_manifests_have_another_spelling(tmp_path: Path) -> None:
    row = {"id": "a", "path": "a.flac", "speaker": "x", "duration": 1, "licence": "CC0-1.0"}
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    assert read_manifest(tmp_path / "m.jsonl")[0].license == "CC0-1.0"
    assert Manifest(tmp_path / "m.jsonl").select(licenses=["CC0-1.0"]).tolist() == [0]


def test_crops_are_those_of_the_packed_corpus(prepared: Path, corpus: Corpus) -> None:
    opened = PreparedCorpus(Manifest(prepared))
    indices = [i for i, clip in enumerate(corpus.clips) if clip.split == "train"]
    one, other = Subset(corpus, indices), Subset(opened, indices)
    assert torch.equal(one.weights(0.7), other.weights(0.7))
    assert one.by_speaker() == other.by_speaker() and one.identity() == other.identity()
    packed, read = (
        each.crops(6, 9000, step_generator(1, 3), each.weights(0.7), grid=480)
        for each in (one, other)
    )
    assert packed.indices == read.indices and packed.starts == read.starts
    torch.testing.assert_close(packed.wave_BS, read.wave_BS, atol=2 / 32767, rtol=0)


def test_processes_share_a_draw_without_overlap(prepared: Path) -> None:
    opened = PreparedCorpus(Manifest(prepared))
    subset = opened.subset(lambda clip: True)
    weights = subset.weights(0.5)

    def draw(rank: int, ranks: int) -> torch.Tensor:
        generator = step_generator(0, 5)
        part = slice(7 * rank // ranks, 7 * (rank + 1) // ranks)
        return subset.crops(7, 2400, generator, weights, part=part).wave_BS

    for ranks in (2, 3):
        assert torch.equal(draw(0, 1), torch.cat([draw(rank, ranks) for rank in range(ranks)]))


def test_files_that_are_not_as_listed_are_named(prepared: Path, tmp_path: Path) -> None:
    clips = read_manifest(prepared)
    rows = [
        {"id": "a", "path": str(clips[0].path), "samples": 1000},
        {"id": "b", "path": "none.flac", "samples": 1000},
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps(row | {"speaker": "x", "duration": 1}) for row in rows))
    opened = PreparedCorpus(Manifest(path))
    with pytest.raises(AudioError, match="manifest says 1000"):
        opened.wave(0)
    with pytest.raises(AudioError, match=r"none\.flac has gone"):
        opened.wave(1)
    (tmp_path / "none.flac").write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"none\.flac cannot be read: [^.]*[^.;]; delete it and"):
        opened.wave(1)
    path.write_text("#" * path.stat().st_size)
    with pytest.raises(ConfigError, match="has changed"):
        opened.clips[0]
    unknown = tmp_path / "unknown.jsonl"
    unknown.write_text(json.dumps({"id": "a", "path": "a", "speaker": "x", "duration": 1}))
    with pytest.raises(ConfigError, match="voxclone data prepare"):
        PreparedCorpus(Manifest(unknown))


def test_files_that_are_not_there_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ["a.flac", "sub/a.flac", "sub/deep/b.flac", "other/c.flac", "ü.flac"]
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "dangling.flac").symlink_to("nowhere.flac")
    (tmp_path / "linked.flac").symlink_to("a.flac")
    listed = {
        "a.flac": True, "b.flac": False, "sub/a.flac": True, "sub/b.flac": False, "sub": False,
        "none/a.flac": False, "sub/deep/b.flac": True, "./sub//deep/b.flac": True,
        "sub/../other/c.flac": True, str(tmp_path / "other/c.flac"): True, "ü.flac": True,
        "dangling.flac": False, "linked.flac": True, "a.flac/b.flac": False,
    }  # fmt: skip
    rows = [
        {"id": str(n), "path": path, "speaker": "x", "duration": 1} for n, path in enumerate(listed)
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    manifest = Manifest(path)
    absent = [n for n, is_there in enumerate(listed.values()) if not is_there]
    assert manifest.missing(np.arange(len(listed))).tolist() == absent
    some = np.array([1, 3, 6])
    assert manifest.missing(some).tolist() == [1, 3]
    assert not len(manifest.missing(some[:0]))
    with monkeypatch.context() as patch:  # what is listed is not asked for again

        def refuse(self: Manifest, index: int) -> None:
            raise AssertionError(index)

        patch.setattr(Manifest, "__getitem__", refuse)
        assert not len(manifest.missing(np.setdiff1d(np.arange(len(listed)), absent)))
    with monkeypatch.context() as patch:  # a folder that may be entered and not listed

        def forbid(path: Path) -> None:
            raise PermissionError(path)

        patch.setattr(os, "scandir", forbid)
        assert manifest.missing(np.arange(len(listed))).tolist() == absent


MILLION = """
import json, re, sys, time
from pathlib import Path
from rich.console import Console
from voxclone.data.manifest import Manifest
from voxclone.data.speech import open_speech
from voxclone.data.speakers import Sizes, SpeakerPool
def most():  # KiB; `ru_maxrss` would be that of the process that started this one
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
path, before, found = Path(sys.argv[1]), most(), {}
allowed, console = ("CC-BY-4.0",), Console(file=sys.stderr)
def measured(name, work):
    begun = time.process_time()  # of this process: the machine may be busy with others
    result = work()
    found[name] = time.process_time() - begun, (most() - before) / 1024
    return result
manifest = measured("manifest", lambda: Manifest(path))
last = manifest[int(manifest.select(split="train")[-1])].id
del manifest
speech = measured("speech", lambda: open_speech(path, allowed, path.parent, console))
measured("identity", speech.identity)
measured("weights", lambda: speech.weights(0.7))
pool = measured("pool", lambda: SpeakerPool.of(speech, Sizes(), 1920))
print(json.dumps([last, len(speech.indices), len(pool.clips), found]))
"""


@pytest.mark.slow
def test_a_million_clips_open_in_seconds_and_flat_memory(tmp_path: Path) -> None:
    """All that a recovery does with its speech before the first step. Ten lines share a file, or
    making them would take a minute; a million files take a second more (docs/DATA.md)."""
    path, files, gone = (
        tmp_path / "manifest.jsonl",
        99_000,
        range(7, 99_000, 1000),
    )  # three speakers
    with path.open("w") as file:
        for n in range(1_000_000):
            row = {
                "id": f"part-{n % 97}/clip-{n}", "path": f"audio/{n % 3000}/{n % files}.flac",
                "speaker": f"{n % 3000}", "duration": 3 + n % 11, "samples": 24000 * (3 + n % 11),
                "text": "It was a bright cold day in April, and the clocks were striking.",
                "language": "en", "split": "train" if n % 50 else "valid", "license": "CC-BY-4.0",
                "bandwidth_hz": 12000, "sha256": f"{n:064x}",
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")
    for n in range(files):
        sound = tmp_path / "audio" / f"{n % 3000}" / f"{n}.flac"
        if n < 3000:
            sound.parent.mkdir(parents=True)
        if n not in gone:
            sound.touch()
    done = subprocess.run(
        [sys.executable, "-c", MILLION, str(path)], check=True, capture_output=True, text=True
    )
    shutil.rmtree(tmp_path / "audio")
    last, kept, speakers, found = json.loads(done.stdout)
    print(done.stdout, done.stderr, f"{path.stat().st_size / 2**20:.0f} MiB of text")
    assert (last, kept, speakers) == ("part-26/clip-999999", 979_000, 2937)
    assert "1,000 of 980,000 clips cannot be read and are left out" in done.stderr
    seconds = {name: values[0] for name, values in found.items()}
    megabytes = {name: values[1] for name, values in found.items()}
    assert 10 < megabytes["manifest"] < 120  # the text alone is three times that
    assert megabytes["pool"] < 250
    limits = {"manifest": 30, "speech": 45, "identity": 5, "weights": 5, "pool": 40}
    assert all(seconds[name] < limit for name, limit in limits.items()), seconds
