"""Speaker consistency of the demonstration clip, and of voices that were made of it."""

from pathlib import Path

import numpy as np
import pytest
import soxr
import torch

from tests.helpers.signals import RATE
from voxclone.audio.files import read_wave
from voxclone.audio.report import ONE_SPEAKER
from voxclone.cloning.speakers import _cluster_cosine, speaker_consistency

EXAMPLE = Path(__file__).parents[2] / "examples" / "reference.flac"


@pytest.fixture(scope="module")
def clip_S() -> np.ndarray:
    return read_wave(EXAMPLE)


def test_one_speaker_is_one(clip_S: np.ndarray) -> None:
    found = speaker_consistency(torch.from_numpy(clip_S))
    assert found is not None and found > ONE_SPEAKER


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_second_speaker_is_found(factor: float, clip_S: np.ndarray) -> None:
    """Played slower or faster, pitch and resonances are another speaker's."""
    other_S = soxr.resample(clip_S, RATE, RATE * factor).astype(np.float32)
    both_S = np.concatenate([clip_S[: 6 * RATE], other_S[: 6 * RATE]])
    found = speaker_consistency(torch.from_numpy(both_S))
    assert found is not None and found < ONE_SPEAKER


def test_too_little_to_tell(clip_S: np.ndarray) -> None:
    assert speaker_consistency(torch.from_numpy(clip_S[: 3 * RATE])) is None
    assert speaker_consistency(torch.zeros(6 * RATE)) is None


def test_groups_are_found_and_a_cough_is_none() -> None:
    generator = torch.Generator().manual_seed(0)
    a_E, b_E = torch.eye(2, 16)

    def around(center_E: torch.Tensor, count: int) -> torch.Tensor:
        noisy_WE = center_E + 0.05 * torch.randn(count, 16, generator=generator)
        return torch.nn.functional.normalize(noisy_WE, dim=-1)

    assert _cluster_cosine(torch.cat([around(a_E, 6), around(b_E, 6)])) < 0.2
    assert _cluster_cosine(torch.cat([around(a_E, 11), around(b_E, 1)])) == 1.0
    assert _cluster_cosine(around(a_E, 12)) > 0.9
    assert _cluster_cosine(a_E.expand(6, 16)) == 1.0
