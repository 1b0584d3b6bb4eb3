"""The folder for the Hub: what is in it, what it says, and what it does not claim."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from tests.helpers.tiny_release import random_entries, write_encoder, write_tiny_release
from tests.release.test_inject import save
from voxclone.errors import QualityError, ReleaseError, UsageError
from voxclone.release.encoder_file import (
    codebook_hash,
    open_external_encoder,
    save_encoder,
    training_metrics,
)
from voxclone.release.hub import Card, write_hub_folder
from voxclone.release.release import Release, load_codec
from voxclone.release.safetensors import read_header
from voxclone.release.safetensors_writer import write_safetensors
from voxclone.release.tensors import encoder_tensors

BASE = "mistralai/Voxtral-4B-TTS-2603"


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release.open(write_tiny_release(tmp_path / "release"))


@pytest.fixture
def encoder(release: Release, tmp_path: Path) -> Path:
    return save(tmp_path / "encoder.safetensors", release)


def parts(out: Path) -> tuple[dict[str, object], str]:
    """The YAML at the top of the card, and the rest."""
    empty, top, rest = (out / "README.md").read_text().split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(top), rest


def test_the_folder(release: Release, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "hub"
    card = Card(BASE, data="LibriTTS-R, 585 h", evaluation="**Codes**\n\n| exact | 0.3 |")
    write_hub_folder(release, open_external_encoder(encoder, release), out, card)
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md",
        "SHA256SUMS",
        "config.json",
        "model.safetensors",
    ]
    sums = dict(line.split("  ")[::-1] for line in (out / "SHA256SUMS").read_text().splitlines())
    assert sums == {
        name: hashlib.sha256((out / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "config.json")
    }
    header = read_header(out / "model.safetensors")
    assert list(header.tensors) == list(encoder_tensors(release.params))
    assert {tensor.dtype for tensor in header.tensors.values()} == {"BF16"}
    assert load_codec(release, out / "model.safetensors").encoder is not None
    assert open_external_encoder(out / "model.safetensors", release).has_provenance
    top, text = parts(out)
    assert top["license"] == "cc-by-nc-4.0" and top["base_model"] == BASE
    assert top["pipeline_tag"] == "text-to-speech"
    for words in ("CC BY-NC 4.0", "LibriTTS-R, 585 h", "| exact | 0.3 |", "## Limits",
                  "## Prohibited uses", "has not agreed", f"huggingface.co/{BASE}"):  # fmt: skip
        assert words in text, words
    assert "Not measured" not in text and "Do not use" not in text
    config = json.loads((out / "config.json").read_text())
    assert config["codebook_sha256"] == codebook_hash(release)
    assert config["tensors"] == 114 and config["base_model"] == BASE
    assert config["parameters"] == sum(tensor.values for tensor in header.tensors.values())
    assert config["codec"]["dim"] == release.params.codec.dim
    assert config["base_model_revision"] is None


def test_an_encoder_of_the_first_format_is_read(release: Release, tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    facts = json.dumps({"config": {}, "step": 3, "figures": {"preset/exact": 0.25}})
    old = {"format": "voxclone.encoder/1", "book": codebook_hash(release), "facts": facts}
    write_safetensors(path, random_entries(encoder_tensors(release.params)), old)
    encoder = open_external_encoder(path, release)
    assert encoder.has_provenance and training_metrics(encoder) == {"preset/exact": 0.25}
    other = {"format": "voxclone.encoder/1", "book": "other", "facts": facts}
    write_safetensors(path, random_entries(encoder_tensors(release.params)), other)
    with pytest.raises(ReleaseError, match="another codebook"):
        open_external_encoder(path, release)


def test_what_is_not_known_is_stated(release: Release, encoder: Path, tmp_path: Path) -> None:
    card = Card("a release of our own", license="cc-by-nc-sa-4.0")
    write_hub_folder(release, open_external_encoder(encoder, release), tmp_path / "hub", card)
    top, text = parts(tmp_path / "hub")
    assert "base_model" not in top and top["license"] == "cc-by-nc-sa-4.0"
    assert "Not measured." in text and "Not stated" in text and "CC BY-NC-SA 4.0" in text


def test_the_revision_is_that_of_the_snapshot(tmp_path: Path, encoder: Path) -> None:
    commit = "b81be46c3777f88621676791b512bb01dc1cb970"
    release = Release.open(write_tiny_release(tmp_path / commit))
    write_hub_folder(release, open_external_encoder(encoder, release), tmp_path / "hub", Card(BASE))
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert config["base_model_revision"] == commit


def test_paths_of_the_trainers_machine_are_not_published(release: Release, tmp_path: Path) -> None:
    encoder = save(tmp_path / "encoder.safetensors", release)
    state = {
        n: open_external_encoder(encoder, release).load(n) for n in encoder_tensors(release.params)
    }
    training = {"config": {"speech": "/home/anna/secret"}, "metrics": {"preset/exact": 0.25}}
    save_encoder(encoder, state, release, training)
    write_hub_folder(release, open_external_encoder(encoder, release), tmp_path / "hub", Card(BASE))
    for path in (tmp_path / "hub").iterdir():
        assert b"secret" not in path.read_bytes()
    assert "| preset/exact | 0.250 |" in parts(tmp_path / "hub")[1]


def test_failed_checks_stand_in_the_card_and_refusals_leave_nothing(
    release: Release, tmp_path: Path
) -> None:
    external = open_external_encoder(
        write_encoder(tmp_path / "e.safetensors", release.params), release
    )
    out = tmp_path / "hub"

    def refuse(path: Path) -> list[str]:
        raise QualityError(f"{path.name} failed its checks")

    with pytest.raises(QualityError):
        write_hub_folder(release, external, out, Card(BASE), validate=refuse)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.safetensors", "release"]
    write_hub_folder(release, external, out, Card(BASE), validate=lambda path: ["double tanh: no."])
    assert "Do not use it as it is" in parts(out)[1] and "- double tanh: no." in parts(out)[1]
    assert "double tanh" in read_header(out / "model.safetensors").metadata["failed_checks"]


def test_other_licenses_and_places_in_use_are_refused(
    release: Release, encoder: Path, tmp_path: Path
) -> None:
    external = open_external_encoder(encoder, release)
    with pytest.raises(UsageError, match=r"cc-by-nc-4\.0 or cc-by-nc-sa-4\.0"):
        write_hub_folder(release, external, tmp_path / "hub", Card(BASE, license="mit"))
    (tmp_path / "hub").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        write_hub_folder(release, external, tmp_path / "hub", Card(BASE))
