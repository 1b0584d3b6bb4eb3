"""The same speech gives the same codes, whatever file it comes in."""

import numpy as np
import pytest
import soundfile
import soxr
import torch
from torch import Tensor

from tests.audio.test_reading import FORMATS, encode
from voxclone.audio.files import read_recording
from voxclone.codec.model import Codec
from voxclone.release.encoder_file import open_codec
from voxclone.release.release import Release


@pytest.fixture(scope="module")
def codec(mini_release: Release) -> Codec:
    return open_codec(mini_release, None)


@pytest.fixture(scope="module")
def wave_S() -> np.ndarray:
    """Two seconds of speech at 48 kHz."""
    samples, rate = soundfile.read("examples/reference.flac", dtype="float32")
    assert rate == 48000
    return samples[rate : 3 * rate]  # type: ignore[no-any-return]


def codes_of(codec: Codec, content: bytes) -> Tensor:
    """Codes [K, T] of a file."""
    found_S = torch.from_numpy(read_recording(content).wave_S)
    assert len(found_S) == 2 * 24000
    return codec.encode(found_S[None])[0]


def within_one(codec: Codec, wave_S: np.ndarray, content: bytes) -> float:
    """Share of the levels that are at most one from those of the samples themselves."""
    true_S = torch.from_numpy(soxr.resample(wave_S, 48000, 24000, "VHQ"))
    true_KT = codec.encode(true_S[None])[0]
    return float(((codes_of(codec, content) - true_KT)[1:].abs() <= 1).double().mean())


@pytest.mark.parametrize(
    ("rate", "least"),
    [(8000, 0.8), (16000, 0.9)] + [(r, 0.99) for r in (22050, 24000, 32000, 44100, 48000, 96000)],
)
def test_rates_and_channels(codec: Codec, wave_S: np.ndarray, rate: int, least: float) -> None:
    own_S = soxr.resample(wave_S, 48000, rate)
    files = [own_S, *(np.stack([own_S] * channels, axis=1) for channels in (2, 6))]
    mono, *others = [encode(each, rate, "WAV", "PCM_16") for each in files]
    assert within_one(codec, wave_S, mono) >= least
    assert all(torch.equal(codes_of(codec, each), codes_of(codec, mono)) for each in others)


@pytest.mark.parametrize("container", FORMATS)
def test_formats_and_depths(codec: Codec, wave_S: np.ndarray, container: str) -> None:
    lossy = container in ("OGG", "MP3")
    for encoding in FORMATS[container]:
        eight_bits = encoding in ("PCM_U8", "PCM_S8")
        least = 0.85 if eight_bits else 0.95 if lossy else 0.99
        assert within_one(codec, wave_S, encode(wave_S, 48000, container, encoding)) >= least
