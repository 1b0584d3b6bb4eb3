"""Checks as functions of stored diagnoses (`tests/helpers/diagnoses.py` measures them)."""

from dataclasses import replace

import pytest

from tests.helpers.altered_encoder import ALTERED
from tests.helpers.diagnoses import ORACLE, load_diagnosis
from voxclone.evaluate.checks import run_checks
from voxclone.evaluate.diagnosis import Diagnosis
from voxclone.evaluate.statistics import Interval


@pytest.fixture(scope="module")
def passing() -> Diagnosis:
    return load_diagnosis(ORACLE)


def test_the_true_encoder_passes_every_check(passing: Diagnosis) -> None:
    found = run_checks(passing)
    assert found.passed and not found.failed and not found.skipped
    assert found.summary == "All checks passed."
    assert found.to_json() == {"failed": [], "skipped": [], "passed": True} | {
        "summary": found.summary
    }


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_encoder_fails_its_check(name: str) -> None:
    found = run_checks(load_diagnosis(name))
    assert name in [each.name for each in found.failed] and name in found.summary
    assert not found.passed and not found.to_json()["passed"]


def test_checks_that_need_the_language_model_are_skipped_without_it(passing: Diagnosis) -> None:
    found = run_checks(replace(passing, language_model=None))
    assert found.passed and found.skipped == ["conditioning gain"]
    few = replace(passing.levels, mahalanobis=None)
    found = run_checks(replace(passing, levels=few))
    assert found.skipped == ["off-distribution levels (too few preset frames)"]
    assert "Skipped: off-distribution" in found.summary


def test_a_voice_without_its_end_embedding_is_named(passing: Diagnosis) -> None:
    inversion = replace(passing.preset_inversion, no_end=["anna", "bert"])
    (failed,) = run_checks(replace(passing, preset_inversion=inversion)).failed
    assert failed.name == "missing END embedding" and "2 voices, such as anna" in failed.measured


def test_codes_that_condition_nothing_fail_where_generated_speech_conditions(
    passing: Diagnosis,
) -> None:
    stats = passing.language_model
    assert stats is not None and stats.conditioning_gain and stats.generated_conditioning_gain

    def names(gain: Interval, generated: Interval) -> list[str]:
        changed = replace(
            stats,
            conditioning_gain=replace(stats.conditioning_gain, flow_gain=gain),
            generated_conditioning_gain=replace(
                stats.generated_conditioning_gain, flow_gain=generated
            ),
        )
        found = run_checks(replace(passing, language_model=changed))
        return [each.name for each in found.failed]

    none, some = Interval(0.0, -0.001, 0.001, 8, 4), Interval(0.02, 0.01, 0.03, 8, 4)
    assert names(none, some) == ["no speaker conditioning"]
    assert names(some, some) == names(none, none) == []


def test_bounds_are_relative_to_the_release(passing: Diagnosis) -> None:
    """What the presets do themselves is no failure."""
    levels = passing.levels
    saturated = replace(levels.encoder, extreme=0.2)
    presets = replace(levels.presets, extreme=0.1)
    both = replace(levels, encoder=saturated, presets=presets)
    alone = replace(levels, encoder=saturated)
    assert "saturation" in run_checks(replace(passing, levels=alone)).summary
    assert "saturation" not in run_checks(replace(passing, levels=both)).summary
    far = replace(levels, mahalanobis=2.0, mahalanobis_max_preset=1.2)
    assert "off-distribution" in run_checks(replace(passing, levels=far)).summary
    wide = replace(levels, mahalanobis=2.0, mahalanobis_max_preset=1.8)
    assert run_checks(replace(passing, levels=wide)).passed
