"""The report of a manifest before anything is trained on it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from tests.helpers.corpora import run
from voxclone.cli.app import app
from voxclone.data.validate import validate
from voxclone.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    wave = 0.1 * np.random.default_rng(0).standard_normal(24000)
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.flac", wave, 24000)
    return tmp_path


def row(number: int, **other: Any) -> dict[str, Any]:
    name = str(number)
    clip = {"id": name, "path": f"{name}.flac", "speaker": f"s{number % 2}", "duration": 1.0}
    return clip | {"text": "we go", "language": "en", "bandwidth_hz": 12000, **other}


def long_rows(folder: Path) -> list[dict[str, Any]]:
    """Rows of more than ten minutes of clips, which are written."""
    for number in range(4):
        soundfile.write(folder / f"{number}.flac", np.zeros(160 * 24000), 24000)
    return [row(number, samples=160 * 24000, duration=160.0) for number in range(4)]


def report_of(folder: Path, rows: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(json.dumps(each) for each in rows))
    return validate(path, **options)


def names_of(report: dict[str, Any], blocking: bool) -> set[str]:
    return {each["name"] for each in report["checks"]["failed"] if each["blocking"] == blocking}


def test_a_good_manifest_is_fit(folder: Path) -> None:
    report = report_of(folder, long_rows(folder))
    assert report["checks"]["passed"] and report["prepared"] and not report["faults"]
    assert report["clips"] == 4 and report["speakers"] == 2
    assert report["hours"] == pytest.approx(640 / 3600) and report["rates"] == {"24000": 4}
    assert report["clips_per_speaker"] == {"least": 2, "median": 2, "most": 2}
    assert names_of(report, blocking=False) == {"few speakers", "little speech"}


def test_a_minute_of_speech_is_not_fit(folder: Path) -> None:
    report = report_of(folder, [row(n, samples=24000) for n in range(4)])
    assert names_of(report, blocking=True) == {"little speech"} and not report["faults"]


BAD: dict[str, list[dict[str, Any]]] = {
    "nothing to train on": [row(0, split="test")],
    "one speaker": [row(0), row(2)],
    "shared speakers": [row(0), row(1), row(2, split="valid")],
    "ids twice": [row(0), row(1), row(1, path="2.flac")],
    "missing files": [row(0), row(1), row(9)],
    "undecodable files": [row(0), row(1), row(3, path="manifest.jsonl")],
    "other than listed": [row(0), row(1, samples=23999)],
    "shorter than a frame": [row(0, duration=0.05), row(1, duration=0.05)],
    "bad lines": [row(0), row(1), {"id": "x"}],
}


@pytest.mark.parametrize("name", BAD)
def test_faults_block_training(folder: Path, name: str) -> None:
    report = report_of(folder, BAD[name])
    assert name in names_of(report, blocking=True) and not report["checks"]["passed"]


def remedies(manifest: Path) -> str:
    return " ".join(each["remedy"] for each in validate(manifest)["checks"]["failed"])


def test_lists_of_other_kinds_get_a_remedy(folder: Path) -> None:
    csv = folder / "list.csv"
    csv.write_text("0.flac|Hello there.\n1.flac|Hello.\n")
    assert "(CSV, LJSpeech), name the folder" in remedies(csv)
    (bad,) = (c for c in validate(csv)["checks"]["failed"] if c["name"] == "bad lines")
    assert bad["measured"].startswith("2 of 2, the first: line 1")
    for start in (b"\xef\xbb\xbf", b""):
        csv.write_bytes(start + b"path,speaker\n0.flac,a\n")
        assert "(CSV, LJSpeech), name the folder" in remedies(csv)
    report_of(folder, [row(0, duration="x"), row(1, speaker=None)])
    assert "Mend them" in remedies(folder / "manifest.jsonl")  # of the first, which is shown
    report = report_of(folder, [row(0), row(9), {"id": "x"}])
    (missing,) = (c for c in report["checks"]["failed"] if c["name"] == "missing files")
    assert missing["measured"].startswith("1 of 2")
    report_of(folder, [row(0), row(1, speaker=None)])
    assert "Give each clip a speaker" in remedies(folder / "manifest.jsonl")
    report_of(folder, [row(0), row(1, path="b\\1.flac")])
    assert "Write / instead of \\" in remedies(folder / "manifest.jsonl")


def test_a_list_that_is_named_as_a_manifest_gets_a_remedy(folder: Path) -> None:
    path = folder / "list.jsonl"
    path.write_text("0.flac|Hello there.\n")
    code, printed = run("prepare", str(path), "-o", str(folder / "out"))
    assert code == 1 and "(CSV, LJSpeech), name the folder" in printed


def test_a_few_missing_files_are_named_and_do_not_stop(folder: Path) -> None:
    rows = [row(n % 4, id=f"{n}", speaker=f"s{n % 2}") for n in range(40)] + [row(41)]
    report = report_of(folder, rows)
    assert "missing files" in names_of(report, blocking=False)
    assert report["faults"]["missing files"]["examples"] == [str(folder / "41.flac")]


def test_bands_texts_and_single_clips_are_reported(folder: Path) -> None:
    rows = [row(0, bandwidth_hz=7800, text=None), row(1, bandwidth_hz=9000), row(2)]
    report = report_of(folder, rows)
    expected = {"narrow band", "speakers with one clip", "clips without text"}
    assert expected <= names_of(report, blocking=False)
    assert report["bands"] == {"below 8 kHz": 1, "8 to 11 kHz": 1, "11 kHz and above": 1}
    longer = report_of(folder, rows, frame_size=30000)
    assert "shorter than a frame" in names_of(longer, blocking=True)


def test_the_command_writes_reports_and_ends_with_three(folder: Path) -> None:
    report_of(folder, long_rows(folder))
    manifest, out = str(folder / "manifest.jsonl"), folder / "report"
    done = CliRunner().invoke(app, ["data", "validate", manifest, "-o", str(out)])
    assert done.exit_code == 0 and "Usable for training." in done.output
    assert json.loads((out / "report.json").read_text())["schema"] == "voxclone.validation/3"
    assert "Speech to train on" in (out / "report.html").read_text()
    report_of(folder, [row(0)])
    code, printed = run("validate", manifest, "--model", "mini", "--quick")
    assert code == 3 and "Not usable for training: one speaker," in printed


def test_manifests_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        validate(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match="lists no clip"):
        validate(tmp_path / "empty.jsonl")
