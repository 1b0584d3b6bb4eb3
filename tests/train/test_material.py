"""Which clips of a manifest are trained on, and what is printed of the others."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console

from voxclone.data.corpus import Subset
from voxclone.data.speech import open_speech
from voxclone.errors import ConfigError, ReleaseError
from voxclone.rng import step_generator
from voxclone.train import distributed, encoder
from voxclone.train.encoder_config import EncoderConfig
from voxclone.train.material import Inputs, require_same_speech
from voxclone.tts.tts import TTS

CLIPS, SAMPLES = 40, 4800


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    """Forty clips of two speakers in two folders, as `data prepare` would list them."""
    found = []
    for n in range(CLIPS):
        path = tmp_path / f"s{n % 2}" / f"{n}.flac"
        path.parent.mkdir(exist_ok=True)
        wave = 0.1 * np.random.default_rng(n).standard_normal(SAMPLES)
        soundfile.write(path, wave, 24000)
        found.append({"id": f"{n}", "path": f"s{n % 2}/{n}.flac", "speaker": f"s{n % 2}",
                      "duration": 0.2, "samples": SAMPLES})  # fmt: skip
    return found


def opened(
    folder: Path,
    rows: list[dict[str, Any]],
    *,
    prepared: bool,
    licenses: tuple[str, ...] | None = None,
) -> tuple[Subset, str]:
    """The speech of some lines, and what was printed."""
    path, printed = folder / "manifest.jsonl", io.StringIO()
    gone = set() if prepared else {"samples"}
    lines = [json.dumps({k: v for k, v in row.items() if k not in gone}) for row in rows]
    path.write_text("\n".join(lines))
    console = Console(file=printed, width=80)
    subset = open_speech(path, licenses, folder / "run" / "speech", console)
    return subset, printed.getvalue()


@pytest.mark.parametrize("prepared", [True, False])
def test_missing_files_are_counted_and_never_drawn(
    prepared: bool, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    whole, printed = opened(tmp_path, rows, prepared=prepared)
    assert len(whole.indices) == CLIPS and "left out" not in printed
    for n in (3, 8):
        (tmp_path / rows[n]["path"]).unlink()
    rows[-1] |= {"duration": 0.3}  # what is packed is packed: another line makes it anew
    few, printed = opened(tmp_path, rows, prepared=prepared)
    assert "2 of 40 clips cannot be read and are left out." in printed
    assert str(tmp_path / rows[3]["path"]) in printed and str(tmp_path / rows[8]["path"]) in printed
    names = {few.corpus.clips[index].id for index in few.indices}
    assert names == {row["id"] for row in rows} - {"3", "8"}
    crops = few.crops(400, 480, step_generator(0, 0), few.weights(0.7))
    assert {few.corpus.clips[index].id for index in crops.indices} <= names
    assert few.identity() != whole.identity()
    again, printed = opened(tmp_path, rows, prepared=prepared)
    assert "2 of 40 clips" in printed and again.identity() == few.identity()


@pytest.mark.parametrize("prepared", [True, False])
def test_too_many_missing_files_stop(
    prepared: bool, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    for n in (3, 8, 11):
        (tmp_path / rows[n]["path"]).unlink()
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path, rows, prepared=prepared)
    sentence = str(caught.value)
    assert "3 of 40 clips cannot be read, and at most 5% may be left out" in sentence
    assert all(str(tmp_path / rows[n]["path"]) in sentence for n in (3, 8, 11))
    # Of the clips that are trained on.
    chosen = [row | ({"split": "test"} if n == 3 else {}) for n, row in enumerate(rows)]
    chosen += [row | {"id": f"{row['id']}b"} for row in rows if row["id"] not in ("3", "8", "11")]
    assert "2 of 76 clips" in opened(tmp_path, chosen, prepared=prepared)[1]


@pytest.mark.parametrize("prepared", [True, False])
def test_one_speaker_is_not_trained_on(
    prepared: bool, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"of 1 speaker\. An encoder of one voice"):
        opened(tmp_path, rows[::2], prepared=prepared)
    assert not (tmp_path / "run").exists()  # printed before anything was decoded
    with pytest.raises(ConfigError, match="of 1 speaker"):  # the other is of another split
        other = [row | {"split": "valid"} for row in rows[1::2]]
        opened(tmp_path, rows[::2] + other, prepared=prepared)
    licensed = [row | {"license": f"L{n % 2}"} for n, row in enumerate(rows)]
    with pytest.raises(ConfigError, match="of 1 speaker"):
        opened(tmp_path, licensed, prepared=prepared, licenses=("L0",))
    (tmp_path / rows[1]["path"]).unlink()
    with pytest.raises(ConfigError, match="of 1 speaker"):  # nothing of the other is there
        opened(tmp_path, rows[::2] + rows[1:2], prepared=prepared)


def test_a_training_begins_with_its_speech(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows[::2]))
    config = EncoderConfig.model_validate({"run": {"steps": 1}})
    quiet = Console(quiet=True)
    with pytest.raises(ConfigError, match="of 1 speaker"):
        inputs = Inputs(speech=path, init="fresh")
        encoder.main(config, inputs, tmp_path / "out", quiet, resume=False)
    assert not (tmp_path / "out" / "checkpoints").exists()
    with pytest.raises(ConfigError, match="--speech"):
        encoder.main(config, Inputs(init="fresh"), tmp_path / "out", quiet, resume=False)


def test_a_model_with_bad_weights_is_refused_before_speech_is_packed(
    rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))

    def refuse(*arguments: object, **options: object) -> None:
        raise ReleaseError("In the release, a weight is not finite.")

    monkeypatch.setattr(TTS, "load", refuse)
    config = EncoderConfig.model_validate({"run": {"steps": 1}, "pairs": {"minutes": 1}})
    with pytest.raises(ReleaseError, match="not finite"):
        inputs = Inputs(speech=path, init="fresh")
        encoder.main(config, inputs, tmp_path / "out", Console(quiet=True), resume=False)
    assert not (tmp_path / "out" / "speech").exists()


def test_machines_that_see_other_speech_are_refused(
    rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    speech, _ = opened(tmp_path, rows, prepared=True)
    require_same_speech(speech, tmp_path)
    monkeypatch.setattr(distributed, "broadcast", lambda values: values | {"hash": "b"})
    with pytest.raises(ConfigError, match=r"Not all machines see the same speech .*40 clips"):
        require_same_speech(speech, tmp_path)
    monkeypatch.setattr(distributed, "is_rank0", lambda: False)
    with pytest.raises(distributed.RaisedByRank0) as caught:  # once is enough
        require_same_speech(speech, tmp_path)
    assert caught.value.exit_code == 1
