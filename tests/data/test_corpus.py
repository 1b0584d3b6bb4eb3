"""Manifests, packing and drawing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from voxclone.audio.files import read_wave
from voxclone.data.corpus import Corpus, pack
from voxclone.data.manifest import Clip, read_manifest
from voxclone.errors import ConfigError
from voxclone.rng import step_generator


def test_packed_clips_are_the_decoded_files(corpus: Corpus, manifest: Path) -> None:
    clips = read_manifest(manifest)
    assert [c.id for c in corpus.clips] == [c.id for c in clips]
    for index, clip in enumerate(clips):
        wave = read_wave(clip.path)
        assert corpus.length(index) == len(wave)
        np.testing.assert_allclose(corpus.wave(index).numpy(), wave, atol=1 / 32000)
    beyond = corpus.wave(0, corpus.length(0) - 10, 30)
    assert len(beyond) == 30 and bool((beyond[10:] == 0).all())


def test_packing_again_opens_what_is_there(manifest: Path, tmp_path: Path) -> None:
    clips = read_manifest(manifest)
    pack(clips, tmp_path)
    before = (tmp_path / "samples.i16").stat().st_mtime_ns
    pack(clips, tmp_path)
    assert (tmp_path / "samples.i16").stat().st_mtime_ns == before
    pack(clips[:-1], tmp_path)
    assert (tmp_path / "samples.i16").stat().st_mtime_ns != before


def test_draws_depend_on_seed_and_step_alone(corpus: Corpus) -> None:
    subset = corpus.subset(lambda c: c.split == "train")
    weights = subset.weights(0.5)

    def draw(seed: int, step: int) -> torch.Tensor:
        return subset.crops(5, 4800, step_generator(seed, step), weights, grid=480).wave_BS

    assert torch.equal(draw(1, 7), draw(1, 7))
    assert not torch.equal(draw(1, 7), draw(1, 8))
    assert not torch.equal(draw(1, 7), draw(2, 7))


def test_crops_start_on_the_grid_and_cover_the_clips(corpus: Corpus) -> None:
    subset = corpus.subset(lambda c: True)
    crops = subset.crops(400, 4800, step_generator(0, 0), subset.weights(0.0), grid=480)
    assert all(start % 480 == 0 for start in crops.starts)
    assert set(crops.indices) == set(subset.indices)


def test_balance_goes_from_seconds_to_speakers(corpus: Corpus) -> None:
    subset = corpus.subset(lambda c: c.speaker == "ada" or c.id == "ben-1")
    names = [corpus.clips[i].speaker for i in subset.indices]
    by_seconds, by_speaker = subset.weights(0.0), subset.weights(1.0)
    share = [float(w[[n == "ben" for n in names]].sum()) for w in (by_seconds, by_speaker)]
    assert share[0] < 0.3 and share[1] == pytest.approx(0.5)


BAD_LINES = {
    "no JSON": "{",
    "no path": json.dumps({"id": "a", "speaker": "b", "duration": 1.0}),
    "no speaker": json.dumps({"id": "a", "path": "b.wav", "duration": 1.0}),
    "a list": "[1]",
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_lines_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("\n" + BAD_LINES[name] + "\n")
    with pytest.raises(ConfigError, match="Line 2"):
        read_manifest(path)


def test_missing_and_empty_manifests_and_selections(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_manifest(tmp_path / "none.jsonl")
    (tmp_path / "m.jsonl").write_text("")
    with pytest.raises(ConfigError, match="lists no clip"):
        read_manifest(tmp_path / "m.jsonl")
    with pytest.raises(ConfigError, match="No clip"):
        corpus.subset(lambda c: False)


def doubled(clips: list[Clip]) -> list[Clip]:
    """Each of them twice, under two ids: so many that one of them may be left out."""
    return [*clips, *(replace(clip, id=f"{clip.id}-again") for clip in clips)]


def test_clips_that_fail_to_decode_are_named_and_many_are_an_error(
    manifest: Path, tmp_path: Path
) -> None:
    clips = doubled(read_manifest(manifest))
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    one = [*clips, clips[0].__class__(id="bad", path=bad, speaker="x", duration=1.0)]
    packed = pack(one, tmp_path / "packed")
    assert len(packed) == len(one) - 1
    assert "bad" in json.loads((tmp_path / "packed" / "left_out.json").read_text())
    with pytest.raises(ConfigError, match="1 of 4 clips cannot be read, and at most 5% may be"):
        pack([*clips[:3], one[-1]], tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())
    with pytest.raises(ConfigError, match=f"{clips[0].id} occurs more than once"):
        pack([*clips, clips[0]], tmp_path / "twice")


def test_a_line_that_has_changed_is_read_anew(manifest: Path, tmp_path: Path) -> None:
    clips = read_manifest(manifest)
    silent = [replace(clip, text=None) for clip in clips]
    assert all(clip.text is None for clip in pack(silent, tmp_path).clips)
    assert pack(clips, tmp_path).clips == clips
    moved = [replace(clips[0], path=clips[1].path), *clips[1:]]
    packed = pack(moved, tmp_path)
    assert torch.equal(packed.wave(0), packed.wave(1))


def test_a_clip_that_was_left_out_is_packed_when_it_is_there(
    manifest: Path, tmp_path: Path
) -> None:
    clips = doubled(read_manifest(manifest))
    late = tmp_path / "late.flac"
    given = [*clips, replace(clips[0], id="late", path=late)]
    packed = pack(given, tmp_path / "packed")
    assert len(packed) == len(clips) and "no file" in packed.left_out["late"]
    before = (tmp_path / "packed" / "samples.i16").stat().st_mtime_ns
    assert pack(given, tmp_path / "packed").left_out == packed.left_out
    assert (tmp_path / "packed" / "samples.i16").stat().st_mtime_ns == before
    late.write_bytes(clips[0].path.read_bytes())
    packed = pack(given, tmp_path / "packed")
    assert len(packed) == len(given) and not packed.left_out


def test_an_identity_is_of_what_is_drawn(manifest: Path, tmp_path: Path) -> None:
    clips = read_manifest(manifest)

    def identity(of: list[Clip], folder: str) -> dict[str, Any]:
        return pack(of, tmp_path / folder).subset(lambda clip: True).identity()

    first = identity(clips, "a")
    hours = sum(clip.duration for clip in clips) / 3600
    assert first["clips"] == len(clips) and first["hours"] == pytest.approx(hours, abs=6e-4)
    assert identity([replace(clip, text="other") for clip in clips], "b") == first
    renamed = {"ada": "zoe"}
    assert identity([replace(c, speaker=renamed.get(c.speaker, c.speaker)) for c in clips],
                    "c") == first  # fmt: skip
    others = {
        "fewer": clips[:-1],
        "reordered": [*clips[1:], clips[0]],
        "another id": [replace(clips[0], id="x"), *clips[1:]],
        "another length": [replace(clips[0], path=clips[1].path), *clips[1:]],
        "another speaker": [replace(clips[0], speaker="x"), *clips[1:]],
    }
    hashes = {identity(of, name)["hash"] for name, of in others.items()} | {first["hash"]}
    assert len(hashes) == len(others) + 1
    subset = pack(clips, tmp_path / "a").subset(lambda clip: clip.split == "train")
    assert subset.identity() != first
