"""Encoders that learn from real and from decoded speech are scored on both."""

from pathlib import Path

import pytest

from experiments.transfer import transfer
from tests.helpers.random_weights import drawn_codec
from tests.train.tiny import CODEC
from voxclone.data.manifest import read_manifest


def test_both_arms_are_scored(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.transfer.SHORTEST", 0.5)
    sets = {"recovery": ["ada"], "test": ["ben"]}
    found = transfer(drawn_codec(CODEC), read_manifest(manifest), sets, 2, 0)
    shares = found["transfer"]
    assert isinstance(shares, dict) and set(shares) == {"semantic", "exact", "within_one"}
    for arm in ("U", "P"):
        scores = found[arm]
        assert isinstance(scores, dict) and set(scores) == {"real", "decoded"}
        assert all(0 <= each["within_one"] <= 1 for each in scores.values())
    assert found["chance"] != found["reencoded"]
