"""Crops that are drawn on a device, speeds, and the teacher's states under crops."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
from safetensors.torch import load_file
from torch import Tensor

from recipes.mini_release.crops import (
    CropSettings,
    CropSource,
    DrawnCrops,
    change_speed,
    device_generator,
)
from recipes.mini_release.teacher import (
    FRAME,
    TeacherStates,
    WindowTeacher,
    fill_windows,
    make_states,
)
from tests.train.tiny import CODEC, CPU
from voxclone.data.corpus import Corpus

SIZE = CODEC.frame_size


def band_limited(samples: int) -> np.ndarray:
    """Noise below 8 kHz at 24 kHz."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(samples))
    spectrum[samples // 3 :] = 0
    wave: np.ndarray = 0.1 * np.fft.irfft(spectrum, samples)
    return wave.astype(np.float32)


@pytest.mark.parametrize("rate", [0.8, 0.93, 1.0, 1.17, 1.25])
def test_another_speed_is_a_resampling(rate: float) -> None:
    wave_S = band_limited(24000)
    wanted = torch.from_numpy(soxr.resample(wave_S, 24000 * rate, 24000))
    samples_S = torch.from_numpy(wave_S)

    def read(offset: Tensor) -> Tensor:
        inside = (offset >= 0) & (offset < len(samples_S))
        return torch.where(inside, samples_S[offset.clamp(0, len(samples_S) - 1)], 0.0)

    found = change_speed(read, torch.tensor([rate]), 16000)[0]
    middle = slice(200, 15800)
    error = (found - wanted[:16000])[middle].square().mean() / wanted[middle].square().mean()
    assert float(error) < 2e-3


def test_a_batch_is_a_function_of_seed_and_step(corpus: Corpus) -> None:
    settings = CropSettings(batch=5, frames=3)
    source = CropSource(corpus.subset(lambda clip: True), settings, SIZE, CPU)
    first, again, other = (source.draw(device_generator(0, step, 0, CPU)) for step in (7, 7, 8))
    assert torch.equal(first.wave_BS, again.wave_BS)
    assert not torch.equal(first.wave_BS, other.wave_BS)
    assert first.wave_BS.shape == (5, 3 * SIZE)


def test_rows_at_their_own_speed_are_the_clip_at_a_gain(corpus: Corpus) -> None:
    settings = CropSettings(batch=8, frames=3, gains_db=(-6.0, 0.0))
    source = CropSource(corpus.subset(lambda clip: True), settings, SIZE, CPU)
    assert settings.changed_rows == 3
    for step in range(4):
        crops = source.draw(device_generator(0, step, 0, CPU))
        for row in range(settings.changed_rows, 8):
            index, start = int(crops.index_B[row]), int(crops.frame_B[row]) * SIZE
            wave_S = corpus.wave(index, start, 3 * SIZE)
            gain = (crops.wave_BS[row] @ wave_S) / wave_S.square().sum()
            assert 0.49 < float(gain) < 1.01
            torch.testing.assert_close(crops.wave_BS[row], gain * wave_S, atol=1e-5, rtol=1e-4)


def test_beyond_a_clip_there_is_silence(corpus: Corpus) -> None:
    settings = CropSettings(batch=6, frames=40, gains_db=(0.0, 0.0))
    source = CropSource(corpus.subset(lambda clip: True), settings, SIZE, CPU)
    crops = source.draw(device_generator(0, 0, 0, CPU))
    for row, index in enumerate(crops.index_B.tolist()):
        longest = int(corpus.length(index) / settings.speeds[0]) + 32
        assert int(crops.frame_B[row]) == 0
        assert float(crops.wave_BS[row, longest:].abs().max()) == 0
        assert float(crops.wave_BS[row, : corpus.length(index) // 2].abs().max()) > 0


def test_states_lie_under_their_crops(corpus: Corpus, teacher: TeacherStates) -> None:
    last = len(corpus) - 1  # without a text, and so without states
    frames = 30
    index_B = torch.tensor([2, 5, 5, last])
    crops = DrawnCrops(torch.zeros(4, frames * SIZE), index_B, torch.tensor([0, 0, 4, 0]))
    found = teacher.under(crops, frames, changed_rows=1)
    assert found["target"].shape == (4, 2 * frames, teacher.dim)
    for name in ("target", "token", "share"):
        assert float(found[name][[0, 3]].abs().max()) == 0, name
    torch.testing.assert_close(found["target"][1, 8:], found["target"][2, :-8])
    torch.testing.assert_close(found["share"][1, :, 4:], found["share"][2, :, :-4])
    clip_frames = -(-corpus.length(5) // SIZE)
    known = (found["target"][1].abs().sum(-1) > 0).tolist()
    assert known == [True] * (2 * clip_frames) + [False] * (2 * (frames - clip_frames))
    tokens = len((corpus.clips[5].text or "").replace(" ", "")) + 3  # and a mark for each word
    weights = found["share"][1].sum(dim=-1)
    assert torch.allclose(weights[:tokens], torch.ones(tokens), atol=1e-2)
    assert float(weights[tokens:].sum()) == 0


def test_clips_of_a_window_have_their_own_stretch(
    corpus: Corpus, whisper: Path, tmp_path: Path
) -> None:
    texts = {i: corpus.clips[i].text or "" for i in range(len(corpus))}
    windows = list(fill_windows(corpus, texts))
    assert [language for language, _ in windows] == ["en"] * len(windows)
    for _, placed in windows:
        assert len({corpus.clips[i].speaker for i, _ in placed}) == 1
        for (index, start), (_, after) in pairwise(placed):
            assert start % FRAME == 0 and after >= start + corpus.length(index) * 2 / 3
    loads = []

    def load() -> WindowTeacher:
        loads.append(1)
        return WindowTeacher(str(whisper))

    paths = make_states(corpus, texts, load, tmp_path)
    assert make_states(corpus, texts, load, tmp_path) == paths and len(loads) == 1
    stored = load_file(paths[0])
    index = windows[0][1][1][0]
    name = corpus.clips[index].id
    frames = -(-corpus.length(index) // SIZE)
    assert stored[f"{name}/encoder"].shape == (2 * frames, 16)
    assert stored[f"{name}/share"].shape == (len(stored[f"{name}/state"]), frames)
    texts[index] = "other words"
    assert make_states(corpus, texts, load, tmp_path)[0] != paths[0] and len(loads) == 2
