"""`voxclone recover`: the whole command on a tiny release, and how its stages are kept."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.helpers.command import Command
from tests.release.real_params import REAL
from voxclone.recover.options import STAGES
from voxclone.recover.recipe import choose_recipe
from voxclone.recover.run import WORK
from voxclone.recover.survey import Survey
from voxclone.release.params import parse_params
from voxclone.release.release import Release

SHORT = (
    *("--set", "run.steps=2", "--set", "pairs.minutes=0", "--set", "frames=4"),
    *("--set", "real_batch=2", "--set", "pair_batch=2", "--set", "weights.bridge=0"),
    *("--set", "teacher=null", "--set", "real_from=0", "--set", "weights.pseudo_label=0"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run that the tests of this module share, in their order."""
    return tmp_path_factory.mktemp("recover") / "run"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The stages that run."""
    names: list[str] = []
    for name, stage in list(WORK.items()):

        def make(*given: Any, name: str = name, make: Any = stage.make) -> Any:
            names.append(name)
            return make(*given)

        monkeypatch.setitem(WORK, name, type(stage)(stage.inputs, make))
    yield names


def test_a_dry_run_says_the_plan_and_writes_nothing(
    model: Path, speech: Path, run: Path, command: Command
) -> None:
    code, out, error = command(
        "recover", "--model", model, "--speech", speech, "-o", run, *SHORT, "--dry-run"
    )
    assert code == 0 and not error
    lines = {line.split()[0]: line for line in out.splitlines() if line.split()[0] in STAGES}
    assert set(lines) == set(STAGES)
    assert "a manifest was given" in lines["prepare"] and "2 steps of mini.yaml" in lines["train"]
    assert "Expect     Less than an hour" in out
    assert "GB  on cpu" in out and not run.exists()


def test_losses_that_the_speech_cannot_feed_are_left_out() -> None:
    """Also one that an override asks for."""
    release: Any = SimpleNamespace(params=parse_params(REAL))
    poor = Survey(clips=9, hours=0.1, speakers=3, labelable=0, clonable=3, exact=True)
    more = ("weights.speaker_contrastive=2.0", "speaker_loss.speaker_encoder=mini", "run.steps=7")
    found = choose_recipe(release, poor, more)
    assert found.name == "voxtral_4b"
    assert not found.config.weights.pseudo_label and not found.config.weights.speaker_contrastive
    assert [note.split(" left out")[0] for note in found.notes] == [
        "Pseudo-labels are", "The speaker loss is"
    ]  # fmt: skip
    rich = replace(poor, labelable=9, clonable=99)
    found = choose_recipe(release, rich, more)
    assert found.config.weights.pseudo_label and found.config.weights.speaker_contrastive
    assert found.config.run.steps == 7 and not found.notes


def test_the_whole_command_ends_with_three_where_a_gate_fails(
    model: Path, speech: Path, run: Path, command: Command
) -> None:
    code, out, error = command("recover", "--model", model, "--speech", speech, "-o", run, *SHORT)
    assert code == 3, error
    for stage in ("validate", "train", "diagnose", "evaluate"):
        assert f"{stage}: done in" in out
    assert "pairs: nothing to do" in out and "inject:" not in out and not (run / "release").exists()
    (best,) = run.glob("train-*/run/best.safetensors")
    assert f"voxclone inject {best} --model {model} -o {run / 'release'}" in out
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert 'class="failed"' in page and "The gate of `diagnose` failed" in page
    assert page.count("<audio") == 6 and "clones</td><td>presets" in page.replace(" ", "")
    assert not re.search(r'src="(?!data:)', page)
    assert "recover.log" in {path.name for path in run.iterdir()}


def test_the_same_command_again_does_nothing_again(
    model: Path, speech: Path, run: Path, command: Command, made: list[str]
) -> None:
    code, out, _ = command("recover", "--model", model, "--speech", speech, "-o", run, *SHORT)
    assert code == 3 and made == [] and out.count("kept, from") == 4


def test_a_changed_option_does_again_what_depends_on_it_and_says_why(
    model: Path, speech: Path, run: Path, command: Command, made: list[str]
) -> None:
    before = load_file(next(run.glob("train-*/run/encoder.safetensors")))
    code, out, _ = command(
        "recover", "--model", model, "--speech", speech, "-o", run, *SHORT,
        "--set", "optimizer.lr=1e-4", "--until", "train",
    )  # fmt: skip
    assert code == 0 and made == ["train"]
    assert "train: config.optimizer.lr was 0.0018, now 0.0001 (train-" in out
    assert "Done up to `train`, as asked." in out and "without `--until`" in out
    assert len(list(run.glob("train-*"))) == 2
    made.clear()
    code, out, _ = command(
        "recover", "--model", model, "--speech", speech, "-o", run, *SHORT,
        "--set", "run.steps=3", "--until", "train",
    )  # fmt: skip
    assert code == 0 and made == ["train"]
    assert "it continues: run.steps was 2, now 3" in out and "Continuing from step 2" in out
    after = [load_file(path) for path in run.glob("train-*/run/encoder.safetensors")]
    assert all(each.keys() == before.keys() for each in after)


def test_a_result_that_is_damaged_is_made_again(
    model: Path, speech: Path, run: Path, command: Command, made: list[str]
) -> None:
    arguments = ("recover", "--model", model, "--speech", speech, "-o", run, *SHORT)
    (listed,) = run.glob("validate-*/speech.jsonl")
    listed.write_bytes(listed.read_bytes()[:-40])
    code, out, _ = command(*arguments, "--until", "validate")
    assert code == 0 and made == ["validate"]
    assert "validate: its result speech.jsonl has changed" in out


def test_what_passes_becomes_a_release_that_clones(
    model: Path, speech: Path, run: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checks of random weights fail: here they are left out, to reach the end."""
    for folder in run.glob("*/stage.json"):
        values = json.loads(folder.read_text())
        if values["result"] is not None:
            values["result"]["failed"] = None
            folder.write_text(json.dumps(values))
    arguments = ("recover", "--model", model, "--speech", speech, "-o", run)
    code, out, error = command(*arguments, *SHORT, "--set", "run.steps=2")
    assert code == 0, (out, error)
    assert Release.open(run / "release").report.encoder == "complete"
    assert f'voxclone clone me.wav "It works." --model {run / "release"} -o out.wav' in out
    assert f"voxclone serve --model {run / 'release'}" in out
    code, out, _ = command(*arguments, *SHORT)
    assert code == 0 and "inject: kept" in out


def test_another_encoder_leaves_the_earlier_release(
    model: Path, speech: Path, run: Path, command: Command
) -> None:
    (inject,) = run.glob("inject-*/stage.json")
    inject.unlink()
    arguments = ("recover", "--model", model, "--speech", speech, "-o", run)
    code, out, _ = command(*arguments, *SHORT)
    assert code == 0 and f"is kept as {run / 'release-1'}" in out
    assert (run / "release-1" / "params.json").is_file()
