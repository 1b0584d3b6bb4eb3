"""Encoders without provenance: a true one of the mini release passes, a known defect is named."""

from collections.abc import Callable

import pytest
import torch

from tests.helpers.altered_encoder import with_acoustic_gain, with_random_weights
from voxclone.codec.model import Codec
from voxclone.errors import ReleaseError
from voxclone.evaluate import provenance
from voxclone.evaluate.provenance import (
    RUNTIME,
    PresetReencoding,
    failed_checks,
    reencode_presets,
)
from voxclone.release.release import Release
from voxclone.voice.presets import Inversion

Reencode = Callable[[Codec], PresetReencoding]


@pytest.fixture(scope="module")
def inversions(mini_inversions: dict[str, Inversion]) -> dict[str, Inversion]:
    return {name: mini_inversions[name] for name in list(mini_inversions)[:3]}


@pytest.fixture
def reencode(
    release: Release, inversions: dict[str, Inversion], monkeypatch: pytest.MonkeyPatch
) -> Reencode:
    monkeypatch.setattr(provenance, "preset_inversions", lambda release, names: inversions)
    return lambda codec: reencode_presets(release, codec)


def test_a_true_encoder_passes(oracle: Codec, reencode: Reencode) -> None:
    found = reencode(oracle)
    assert found.best == RUNTIME and failed_checks(found) == []
    error = found.by_activation[RUNTIME].level_error
    assert error < 0.8 < found.constant_error < found.chance.level_error
    assert len(found.presets) == 3


def test_a_double_tanh_is_named(oracle: Codec, reencode: Reencode) -> None:
    found = reencode(with_acoustic_gain(oracle, 4.0))
    assert found.best == "tanh of tanh(0.3 z)"
    assert "double tanh" in [each.name for each in failed_checks(found)]
    # Latents that are a little too large are no second tanh.
    assert failed_checks(reencode(with_acoustic_gain(oracle, 1.2))) == []
    plain = reencode(with_acoustic_gain(oracle, 1.8)).by_activation
    assert plain["tanh of tanh(z)"].level_error < plain[RUNTIME].level_error


def test_an_untrained_encoder_is_named(oracle: Codec, reencode: Reencode) -> None:
    names = [each.name for each in failed_checks(reencode(with_random_weights(oracle)))]
    assert "mismatched encoder" in names or "double tanh" in names


def test_presets_that_do_not_invert_decide_nothing(
    release: Release, oracle: Codec, inversions: dict[str, Inversion],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    inexact = {
        name: Inversion(each.codes_KT, torch.zeros_like(each.exact_T), each.has_end)
        for name, each in inversions.items()
    }
    monkeypatch.setattr(provenance, "preset_inversions", lambda release, names: inexact)
    with pytest.raises(ReleaseError, match="cannot be inverted to codes"):
        reencode_presets(release, oracle)
