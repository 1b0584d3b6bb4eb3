"""Any corpus becomes clean clips: sources, rules, resuming, and what the commands say."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.helpers.corpora import put, rows_in, run, voice
from voxclone.audio.measure import speech_level
from voxclone.data import prepare as work
from voxclone.data.clean import CleanSettings, Dropped, clean
from voxclone.data.lhotse import split_of
from voxclone.data.manifest import Item
from voxclone.data.recipes import recipe_source
from voxclone.data.sources import join_sources, open_source
from voxclone.errors import ConfigError, MissingExtraError, UsageError

SETTINGS = CleanSettings()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    for number, place in enumerate(("ada/a.wav", "ada/b.flac", "ben/deep/a.wav")):
        put(root / place, 0.3 * voice(number, 48000), 48000)
    (root / "ada" / "a.txt").write_text(" We go. \n")
    (root / "ada" / "notes.md").write_text("no sound")
    return root


def test_a_folder_becomes_clips_at_one_rate_and_level(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed = run("prepare", corpus, "-o", out, "--jobs", "1", "--license", "CC0-1.0")
    assert code == 0 and "Kept 3 clips of 2 speakers" in printed
    rows = rows_in(out)
    assert [row["id"] for row in rows] == ["ada/a.wav", "ada/b.flac", "ben/deep/a.wav"]
    assert [row["speaker"] for row in rows] == ["ada", "ada", "ben/deep"]
    assert rows[0]["text"] == "We go." and "text" not in rows[1]
    for row in rows:
        samples, rate = soundfile.read(out / row["path"])
        assert (rate, len(samples)) == (24000, row["samples"]) and samples.ndim == 1
        assert speech_level(samples, rate) == pytest.approx(-20, abs=0.7)
        assert row["samples"] < 24000 * 2.6 and row["license"] == "CC0-1.0"  # of 2.95 s
        assert row["native_sampling_rate"] == 48000


def test_a_rule_finds_the_speaker_in_the_path(corpus: Path) -> None:
    source = open_source(corpus, r"^(\w+)/")
    assert [item.speaker for item in source.items()] == ["ada", "ada", "ben"]
    with pytest.raises(UsageError, match="no group"):
        open_source(corpus, "ada")
    with pytest.raises(UsageError, match="no valid regular"):
        open_source(corpus, "(")
    with pytest.raises(UsageError, match="finds no speaker"):
        list(open_source(corpus, "(eve)").items())


def test_speakers_of_two_corpora_stay_apart(corpus: Path) -> None:
    sources = [open_source(corpus), open_source(corpus)]
    speakers = {item.speaker for item in join_sources(sources)()}
    assert len(speakers) == 4 and len({item.id for item in join_sources(sources)()}) == 6


def test_a_clip_that_breaks_a_rule_is_dropped_by_its_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    infinite = voice()
    infinite[100] = np.nan
    cases = {
        "not finite": (infinite, 24000),
        "wrong rate": (voice(rate=8000), 8000),
        "silent": (np.zeros(48000), 24000),
        "too short": (voice(seconds=0.4), 24000),
        "too long": (np.tile(voice(), 14), 24000),
        "no speech": (1e-4 * voice(), 24000),
        "clipped": (np.clip(30 * voice(), -1, 1), 24000),
        "noisy": (0.1 * rng.standard_normal(48000), 24000),
    }
    for rule, (wave, rate) in cases.items():
        path = put(tmp_path / f"{rule}.wav", wave, rate)
        found = clean(Item(rule, path, "ada"), SETTINGS)
        assert isinstance(found, Dropped), rule
        assert found.rule == rule and found.why.endswith("."), found
    (tmp_path / "text.wav").write_text("no sound")
    for name, rule in (("text.wav", "undecodable"), ("none.wav", "missing")):
        found = clean(Item(name, tmp_path / name, "ada"), SETTINGS)
        assert isinstance(found, Dropped) and found.rule == rule


def test_what_was_upsampled_is_flagged(tmp_path: Path) -> None:
    wide = put(tmp_path / "s" / "wide.wav", 0.3 * _bright(1), 24000)
    spectrum = np.fft.rfft(_bright(2))
    spectrum[len(spectrum) * 2 // 3 :] = 0  # 8 of 12 kHz
    narrow = put(tmp_path / "s" / "narrow.wav", 0.3 * np.fft.irfft(spectrum), 24000)
    flags = []
    for path in (wide, narrow):
        found = clean(Item(path.name, path, "ada"), SETTINGS)
        assert not isinstance(found, Dropped), found
        flags.append((found.facts.get("narrow", False), found.facts["bandwidth_hz"]))
    assert not flags[0][0] and flags[1][0] and 7800 < flags[1][1] < 8500


def _bright(seed: int) -> np.ndarray:
    """Speech-like bursts of noise over the whole band."""
    noise = np.random.default_rng(seed).standard_normal(48000) * 0.2
    noise[:8000] *= 1e-3
    noise[30000:36000] *= 1e-3
    return noise


def test_dropped_clips_are_counted_and_nothing_left_is_an_error(
    corpus: Path, tmp_path: Path
) -> None:
    put(corpus / "eve" / "copy.flac", *soundfile.read(corpus / "ada" / "b.flac"))
    (corpus / "eve" / "copy.flac").write_bytes((corpus / "ada" / "b.flac").read_bytes())
    put(corpus / "eve" / "still.wav", np.zeros(48000))
    code, printed = run("prepare", corpus, "-o", tmp_path / "out", "--jobs", "1")
    assert code == 0 and "Dropped 1 duplicate" in printed and "Dropped 1 silent" in printed
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["clips"] == 3 and report["dropped"]["silent"]["clips"] == 1
    left = {row["path"] for row in rows_in(tmp_path / "out")}
    files = (tmp_path / "out").rglob("*.flac")
    assert {str(p.relative_to(tmp_path / "out")) for p in files} == left
    (tmp_path / "bad").mkdir()
    put(tmp_path / "bad" / "still.wav", np.zeros(48000))
    code, error = run("prepare", tmp_path / "bad", "-o", tmp_path / "none", "--jobs", "1")
    assert code == 1 and "No clip is left (silent: 1)" in error
    assert not (tmp_path / "none" / "manifest.jsonl").exists()


def test_a_clip_that_is_listed_twice_keeps_its_file(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "PART", 2)  # the second is of another part
    lines = [
        json.dumps({"id": name, "path": f"corpus/{name}", "speaker": "x", "duration": 2})
        for name in ("ada/a.wav", "ada/b.flac", "ben/deep/a.wav", "ada/a.wav")
    ]
    (tmp_path / "twice.jsonl").write_text("\n".join(lines))
    out = tmp_path / "out"
    code, printed = run("prepare", tmp_path / "twice.jsonl", "-o", out, "--jobs", "1")
    assert code == 0 and "Kept 3 clips" in printed and "Dropped 1 duplicate" in printed
    assert all((out / row["path"]).is_file() for row in rows_in(out)) and len(rows_in(out)) == 3


def test_a_clip_whose_file_has_gone_is_made_anew(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ("prepare", corpus, "-o", out, "--jobs", "1")
    assert run(*given)[0] == 0
    before = (out / "manifest.jsonl").read_bytes()
    lost = out / rows_in(out)[1]["path"]
    lost.unlink()
    code, error = run(*given)
    assert code == 1 and f"such as {lost.relative_to(out)}: run the same command again" in error
    assert (out / "manifest.jsonl").read_bytes() == before
    assert run(*given)[0] == 0 and lost.is_file()
    assert (out / "manifest.jsonl").read_bytes() == before


def test_an_interrupted_preparation_goes_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "PART", 1)
    items = list(open_source(corpus).items())
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    request = {"sources": [str(corpus)]}
    work.open_folder(whole, request)
    work.prepare(items, whole, SETTINGS)
    calls: list[str] = []

    def stopping(item: Item, settings: CleanSettings) -> Any:
        calls.append(item.id)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return clean(item, settings)

    monkeypatch.setattr(work, "clean", stopping)
    work.open_folder(broken, request)
    with pytest.raises(KeyboardInterrupt):
        work.prepare(items, broken, SETTINGS)
    assert not (broken / "manifest.jsonl").exists()
    work.open_folder(broken, request)
    work.prepare(items, broken, SETTINGS)
    assert calls == [items[0].id, items[1].id, items[1].id, items[2].id]
    assert (broken / "manifest.jsonl").read_bytes() == (whole / "manifest.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="another sources"):
        work.open_folder(broken, {"sources": ["elsewhere"]})


def test_what_is_there_is_not_overwritten(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    code, error = run("prepare", corpus, "-o", tmp_path / "mine")
    assert code == 1 and "holds something else" in error
    code, error = run("prepare", tmp_path / "none", "-o", tmp_path / "out")
    assert code == 1 and "no folder or manifest" in error and not (tmp_path / "out").exists()
    assert run("prepare", corpus)[0] == 2  # without a folder
    code, error = run("prepare", corpus, "-o", tmp_path / "out", "--corpus", "timit")
    assert code == 2 and "libritts-r" in error
    code, error = run("prepare", corpus, "-o", tmp_path / "o2", "--set", "min_snr=3")
    assert code == 1 and "min_snr_db" in error


def test_lhotse_manifests_are_read(corpus: Path, tmp_path: Path) -> None:
    stereo = np.stack([0.3 * voice(7), 0.3 * voice(8)], axis=1)
    long = put(tmp_path / "long.wav", stereo)
    recordings = [
        _recording("whole", corpus / "ada" / "a.wav", 48000, [0]),
        _recording("long", long, 24000, [0, 1]),
    ]
    supervision = {"language": "English", "text": "we go", "channel": 0}
    seconds = recordings[0]["duration"]
    supervisions = [
        supervision
        | {"id": "s1", "recording_id": "whole", "start": 0, "duration": seconds, "speaker": "a"},
        supervision
        | {"id": "s2", "recording_id": "long", "start": 0.2, "duration": 2.0, "speaker": "b"}
        | {"channel": 1},
    ]  # fmt: skip
    folder = tmp_path / "manifests"
    folder.mkdir()
    for name, records in (("recordings", recordings), ("supervisions", supervisions)):
        with gzip.open(folder / f"toy_{name}_dev-clean.jsonl.gz", "wt") as file:
            file.write("\n".join(json.dumps(record) for record in records))
    first, second = open_source(folder).items()
    assert (first.seconds, first.channel, first.split, first.language) == (
        None,
        None,
        "valid",
        "en",
    )
    assert (second.start, second.seconds, second.channel) == (0.2, 2.0, 1)
    found = clean(second, SETTINGS)
    assert not isinstance(found, Dropped)
    cuts = [
        {"id": "c", "type": "MonoCut", "start": 0.1, "duration": 2.4, "channel": 1,
         "supervisions": [supervisions[1] | {"start": 0.1}], "recording": recordings[1]},
    ]  # fmt: skip
    path = tmp_path / "cuts.jsonl"
    path.write_text(json.dumps(cuts[0]))
    (cut,) = open_source(path).items()
    assert (cut.start, cut.seconds, cut.channel) == (pytest.approx(0.2), 2.0, 1)
    again = clean(cut, SETTINGS)
    assert not isinstance(again, Dropped) and np.array_equal(again.wave_S, found.wave_S)


def test_cuts_of_what_a_pair_says_are_not_read_beside_it(corpus: Path, tmp_path: Path) -> None:
    recordings = [
        _recording(name, corpus / "ada" / name, 48000, [0]) for name in ("a.wav", "b.flac")
    ]
    supervisions = [
        {"id": f"s-{r['id']}", "recording_id": r["id"], "start": 0, "duration": r["duration"],
         "channel": 0, "speaker": "ada"}
        for r in recordings
    ]  # fmt: skip
    cuts = [
        {"id": f"c-{r['id']}", "type": "MonoCut", "start": 0, "duration": r["duration"],
         "channel": 0, "supervisions": [s], "recording": r}
        for r, s in zip(recordings, supervisions, strict=True)
    ]  # fmt: skip
    folder, out = tmp_path / "manifests", tmp_path / "out"
    folder.mkdir()

    def write(name: str, records: list[dict[str, Any]]) -> None:
        (folder / name).write_text("\n".join(json.dumps(record) for record in records))

    write("toy_recordings_train.jsonl", recordings)
    write("toy_supervisions_train.jsonl", supervisions)
    write("any_cuts.jsonl", cuts)
    code, printed = run("prepare", folder, "-o", out, "--jobs", "1")
    assert code == 0 and "Kept 2 clips" in printed and "Dropped" not in printed
    assert [row["id"] for row in rows_in(out)] == ["s-a.wav", "s-b.flac"]
    assert all((out / row["path"]).is_file() for row in rows_in(out))
    write("toy_supervisions_train.jsonl", supervisions[:1])  # now the cuts have more
    code, printed = run("prepare", folder, "-o", out, "--jobs", "1")
    assert code == 0 and "Kept 2 clips" in printed and "Dropped 1 duplicate" in printed
    assert all((out / row["path"]).is_file() for row in rows_in(out))
    write("any_cuts.jsonl", [{"id": "m", "type": "MixedCut", "tracks": []}])
    code, printed = run("prepare", folder, "-o", out, "--jobs", "1")
    assert code == 1 and "of the type 'MixedCut'" in printed


def _recording(name: str, path: Path, rate: int, channels: list[int]) -> dict[str, Any]:
    frames = soundfile.info(path).frames
    source = {"type": "file", "channels": channels, "source": str(path)}
    return {"id": name, "sources": [source], "sampling_rate": rate, "num_samples": frames,
            "duration": frames / rate}  # fmt: skip


def test_lhotse_manifests_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "a_recordings_train.jsonl").write_text("{}")
    with pytest.raises(ConfigError, match="no supervisions beside"):
        open_source(tmp_path)
    (tmp_path / "a_supervisions_train.jsonl").write_text('{"id": "s", "recording_id": "r"}')
    with pytest.raises(ConfigError, match=r"record 1 .*'id' is missing"):
        list(open_source(tmp_path).items())
    (tmp_path / "a_recordings_train.jsonl").write_text("{")
    with pytest.raises(ConfigError, match=r"Line 1 .* is not valid JSON"):
        list(open_source(tmp_path).items())


def test_names_tell_the_split() -> None:
    names = {"x_cuts_train-clean-100.jsonl.gz": "train", "cv-en_recordings_dev.jsonl": "valid"}
    names |= {"librispeech_recordings_test-other.jsonl.gz": "test", "contest.jsonl": "train"}
    assert {name: split_of(name) for name in names} == names


def test_a_missing_lhotse_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lhotse", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'voxclone\[data\]'"):
        recipe_source("vctk", tmp_path, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_names_of_files_cannot_leave_the_folder() -> None:
    names = [
        Item(i, Path("a.wav"), s).clip_path() for i, s in (("../../x", ".."), ("a/b?.wav", "ü"))
    ]
    assert all(".." not in name and name.count("/") == 1 for name in names)
