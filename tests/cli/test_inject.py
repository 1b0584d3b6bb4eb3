"""`voxclone inject`: what it prints, writes and refuses, and with which exit code."""

import functools
import json
from pathlib import Path

import pytest
import torch

from tests.helpers.altered_encoder import with_acoustic_gain
from tests.helpers.command import Command, sentence
from tests.helpers.tiny_release import tiny_params, write_encoder, write_tiny_release
from tests.release.test_inject import save
from voxclone.codec.model import Codec
from voxclone.evaluate import provenance
from voxclone.release.presets import read_preset
from voxclone.release.release import Release
from voxclone.release.safetensors import read_header
from voxclone.voice.presets import preset_inversions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_release(tmp_path / "release")


@pytest.fixture
def encoder(folder: Path, tmp_path: Path) -> Path:
    return save(tmp_path / "encoder.safetensors", Release.open(folder))


def test_inject_prints_what_it_did(folder: Path, encoder: Path, command: Command) -> None:
    out = folder.parent / "out"
    code, printed, error = command("inject", encoder, "--model", folder, "-o", out)
    assert code == 0, error
    for words in ("Linked", "Proved", "SHA-256", "mlx-audio", str(out)):
        assert words in printed, words
    assert "Copied" not in printed and "Unknown" not in printed
    code, printed, _ = command("inspect", "--model", out)
    assert code == 0 and "encoder: complete" in printed
    again = ("--model", out, "-o", folder.parent / "again", "--replace", "--merge", "--copy")
    code, printed, _ = command("inject", encoder, *again)
    assert code == 0 and "Rewrites" in printed and "Copied" in printed and "Linked" not in printed


def test_copies_are_reported_where_links_cannot_be_made(
    folder: Path, encoder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    code, printed, _ = command("inject", encoder, "--model", folder, "-o", folder.parent / "out")
    assert code == 0 and "hard links cannot be made there" in printed


def test_a_dry_run_writes_nothing(folder: Path, encoder: Path, command: Command) -> None:
    before = sorted(folder.parent.rglob("*"))
    dry = ("inject", encoder, "--model", folder, "--dry-run")
    code, printed, _ = command(*dry, "-o", folder.parent / "out", "--json", "--merge")
    plan = json.loads(printed)
    assert code == 0 and plan["rewritten"]["consolidated.safetensors"] > 100
    hub = ("-o", folder.parent / "hub", "--to-hub", "--base-model", "a/b")
    code, printed, _ = command(*dry, *hub)
    assert code == 0 and "Would write" in printed
    assert sorted(folder.parent.rglob("*")) == before


def test_a_dry_run_tells_of_a_preset_that_is_not_finite(
    folder: Path, encoder: Path, command: Command
) -> None:
    path = folder / "voice_embedding" / "bert.pt"
    voice_ND = read_preset(path, Release.open(folder).params.lm.dim)
    voice_ND[0, 0] = torch.nan
    torch.save(voice_ND, path)
    out = folder.parent / "out"
    code, _, error = command("inject", encoder, "--model", folder, "--dry-run", "-o", out)
    assert code == 1 and "bert.pt has values that are not finite" in sentence(error)


def test_json_gives_the_proof(folder: Path, encoder: Path, command: Command) -> None:
    out = folder.parent / "out"
    code, printed, _ = command("inject", encoder, "--model", folder, "-o", out, "--json")
    done = json.loads(printed)
    assert code == 0 and done["written"] == ["consolidated-encoder.safetensors"]
    assert set(done["sha256"]) == set(done["linked"]) == set(done["carried"])


def test_leftovers_of_an_earlier_run_are_named(
    folder: Path, encoder: Path, command: Command
) -> None:
    (folder.parent / ".out.12ab.tmp").mkdir()
    code, printed, _ = command("inject", encoder, "--model", folder, "-o", folder.parent / "out")
    assert code == 0 and ".out.12ab.tmp is of an interrupted run" in printed


def test_bad_arguments_get_a_sentence(folder: Path, encoder: Path, command: Command) -> None:
    there = folder.parent
    whole = write_tiny_release(there / "whole", with_encoder=True)
    other = write_encoder(there / "other.safetensors", tiny_params(dim=24))
    (there / "text").write_text("no encoder")
    torch.save([1, 2], there / "list.pt")
    cases: list[tuple[tuple[object, ...], int, str]] = [
        ((encoder, folder, folder), 2, "exists already"),
        ((encoder, folder, folder / "out"), 2, "lies in the release"),
        ((encoder, folder, there / "none" / "out"), 2, "no directory"),
        ((encoder, there / "none", there / "out"), 1, "no directory"),
        ((there / "none", folder, there / "out"), 1, "cannot be read"),
        ((there / "text", folder, there / "out"), 1, "no safetensors file"),
        ((there / "list.pt", folder, there / "out"), 1, "Nothing in it was run"),
        ((other, folder, there / "out"), 1, "not the whole encoder"),
        ((encoder, whole, there / "out"), 1, "--replace"),
        ((encoder, folder, there / "out", "--training-data", "x"), 2, "data goes with --to-hub"),
        ((encoder, folder, there / "out", "--to-hub", "--merge"), 2, "does not go with"),
        ((encoder, folder, there / "out", "--to-hub"), 2, "--base-model OWNER/NAME"),
        ((encoder, folder, there / "out", "--to-hub", "--base-model", "a/b", "--license", "mit"),
         2, "cc-by-nc"),
        ((encoder, folder, there / "out", "--to-hub", "--base-model", "a/b", "--evaluation",
          there / "text"), 2, "is not valid JSON"),
        ((encoder, folder, there / "out", "--to-hub", "--base-model", "a/b", "--evaluation",
          folder / "params.json"), 2, "no report of"),
    ]  # fmt: skip
    before = sorted(there.rglob("*"))
    for arguments, expected, words in cases:
        (name, model, out), options = arguments[:3], arguments[3:]
        code, _, error = command("inject", name, "--model", model, "-o", out, *options)
        assert (code, words in sentence(error)) == (expected, True), (arguments, code, error)
    assert sorted(there.rglob("*")) == before


def test_reports_become_the_cards_evaluation(folder: Path, encoder: Path, command: Command) -> None:
    there = folder.parent
    score = {"mean": 0.5, "low": 0.4, "high": 0.6}
    kinds = dict.fromkeys(("semantic", "exact", "within_one", "level_error"), score)
    report = {"schema": "voxclone.encoder/1", "encoder": "e", "presets": kinds, "oracle": None,
              "presets_by_chance": kinds, "clips": 3, "speakers": 2, "seconds": 9.0}  # fmt: skip
    path = there / "report.json"
    path.write_text(json.dumps(report))
    arguments = ("inject", encoder, "--model", folder, "--to-hub", "--base-model", "a/b")
    given = ("-o", there / "hub", "--evaluation", path, "--training-data", "LibriTTS-R")
    code, printed, error = command(*arguments, *given)
    assert code == 0 and "add --" not in printed, error
    text = (there / "hub" / "README.md").read_text()
    assert "| semantic codes | 50.0% (40.0% to 60.0%) | 50.0% (40.0% to 60.0%) |" in text
    assert "3 clips of 2 speakers" in text
    path.write_text(json.dumps(report | {"presets": {}}))
    code, _, error = command(*arguments, "-o", there / "hub2", "--evaluation", path)
    assert code == 2 and "lacks values" in sentence(error)


def test_an_unknown_encoder_that_cannot_be_checked_is_refused(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "preset_inversions", lambda release, names: {})
    unknown = write_encoder(folder.parent / "unknown.safetensors", tiny_params(), prefix=False)
    out = folder.parent / "out"
    code, printed, error = command("inject", unknown, "--model", folder, "-o", out)
    assert code == 3 and "cannot be checked" in sentence(error) and "Unknown" in printed
    assert sorted(p.name for p in folder.parent.iterdir()) == ["release", "unknown.safetensors"]
    code, printed, _ = command("inject", unknown, "--model", folder, "-o", out, "--force")
    assert code == 0 and "Checked    not" in printed
    assert (
        "not checked"
        in read_header(out / "consolidated-encoder.safetensors").metadata["failed_checks"]
    )


def test_the_communitys_encoder_is_checked_not_trusted(
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    mini_release: Release,
    oracle_of_mini: Codec,
) -> None:
    once = functools.cache(lambda names: preset_inversions(mini_release, names))
    monkeypatch.setattr(provenance, "preset_inversions", lambda _, names: once(tuple(names[:2])))
    for name, gain in (("honest.pt", 1.0), ("best_encoder.pt", 4.0)):
        state = with_acoustic_gain(oracle_of_mini, gain).require_encoder().state_dict()
        torch.save({each: tensor.float() for each, tensor in state.items()}, tmp_path / name)
    code, printed, error = command("inject", tmp_path / "honest.pt", "-o", tmp_path / "good")
    assert code == 0 and "Checked    on 2 presets" in printed, error
    bad, out = tmp_path / "best_encoder.pt", tmp_path / "out"
    code, printed, error = command("inject", bad, "-o", out)
    assert code == 3 and "double tanh" in sentence(error) and "--force" in error
    assert "double tanh" in printed and "saturation" in printed
    assert not out.exists() and not list(tmp_path.glob(".*"))
    code, _, error = command("inject", bad, "-o", tmp_path / "hub", "--to-hub", "--force")
    assert code == 0, error
    assert "- double tanh: It was trained with" in (tmp_path / "hub" / "README.md").read_text()
    assert "license: cc-by-nc-sa-4.0" in (tmp_path / "hub" / "README.md").read_text()
