"""Encoders of unknown making, on the mini release: honest ones pass, the known defect is named."""

import copy
from collections.abc import Callable

import pytest
import torch

from voxclone.codec.model import Codec
from voxclone.errors import ReleaseError
from voxclone.evaluate import foreign
from voxclone.evaluate.foreign import RUNTIME, Examination, examine, findings
from voxclone.release.release import Release
from voxclone.voice.presets import Inversion, preset_inversions


@pytest.fixture(scope="module")
def inversions(release: Release) -> dict[str, Inversion]:
    return preset_inversions(release, list(release.params.voices)[:3])


@pytest.fixture
def judged(
    release: Release, inversions: dict[str, Inversion], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Codec], Examination]:
    monkeypatch.setattr(foreign, "preset_inversions", lambda release, names: inversions)
    return lambda codec: examine(release, codec)


def altered(oracle: Codec, gain: float) -> Codec:
    """The true encoder with its acoustic latents times `gain`: what training through a tanh of
    tanh(0.3 z) comes to, whose trainer needs latents more than three times as large."""
    codec = copy.deepcopy(oracle)
    last = codec.require_encoder().encoder_blocks[-1]
    with torch.no_grad():
        scale = last.conv.parametrizations.weight.original0
        scale[codec.quantizer.semantic_dim :] *= gain
    return codec


def test_an_honest_encoder_passes(oracle: Codec, judged: Callable[[Codec], Examination]) -> None:
    found = judged(oracle)
    assert found.best == RUNTIME and findings(found) == []
    assert found.readings[RUNTIME].level_error < 0.8 < found.deaf < found.chance.level_error
    assert len(found.presets) == 3


def test_a_double_tanh_is_named(oracle: Codec, judged: Callable[[Codec], Examination]) -> None:
    found = judged(altered(oracle, 4.0))
    assert found.best == "tanh of tanh(0.3 z)"
    assert "double tanh" in [each.name for each in findings(found)]
    assert findings(judged(altered(oracle, 1.2))) == []  # a little too large is no second tanh
    plain = judged(altered(oracle, 1.8))
    assert plain.readings["tanh of tanh(z)"].level_error < plain.readings[RUNTIME].level_error


def test_an_untrained_encoder_is_named(
    oracle: Codec, judged: Callable[[Codec], Examination]
) -> None:
    codec = copy.deepcopy(oracle)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, values in codec.require_encoder().named_parameters():
            if name.endswith("original1") or "attention.w" in name or "feed_forward" in name:
                values.copy_(torch.randn(values.shape, generator=generator) * values.std())
    names = [each.name for each in findings(judged(codec))]
    assert "deaf" in names or "double tanh" in names


def test_presets_that_do_not_invert_settle_nothing(
    release: Release, oracle: Codec, inversions: dict[str, Inversion],
    judged: Callable[[Codec], Examination], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    inexact = {
        name: Inversion(each.codes_KT, torch.zeros_like(each.exact_T), each.has_end)
        for name, each in inversions.items()
    }
    monkeypatch.setattr(foreign, "preset_inversions", lambda release, names: inexact)
    with pytest.raises(ReleaseError, match="cannot be turned back to codes"):
        examine(release, oracle)
