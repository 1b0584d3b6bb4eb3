"""Ends of speech, with scripted draws: silence, missed stops, draws again, fades."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.helpers.signals import syllables
from voxclone.tts.endings import fade, is_silent, speech_end
from voxclone.tts.speech import SpokenPart, join_parts, speak_part
from voxclone.tts.text import Part, frame_cap

RATE, FRAME, FRAME_RATE = 24000, 1920, 12.5
TEXT = "Hi."
CAP = frame_cap(TEXT, FRAME_RATE)


def wave(spoken: float, frames: int, peak: float = 0.3) -> torch.Tensor:
    """So many seconds of speech, then a hum at -56 dBFS up to a number of frames."""
    hum_S = 0.0022 * np.sin(np.arange(frames * FRAME) * 2 * np.pi * 100 / RATE)
    if spoken:
        speech_S = syllables(spoken)
        hum_S[: len(speech_S)] += speech_S * peak / np.abs(speech_S).max()
    return torch.from_numpy(hum_S.astype(np.float32))


class Script:
    """Generates what was written down for each seed, in chunks as the model does."""

    def __init__(self, waves: dict[int, torch.Tensor]) -> None:
        self.waves, self.seeds = waves, list[int]()

    def __call__(self, text: str, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self.seeds.append(seed)
        wave_S = self.waves[seed]
        codes_KT = torch.full((37, len(wave_S) // FRAME), seed)
        for begin in range(0, codes_KT.shape[1], 10):
            codes = codes_KT[:, begin : begin + 10]
            yield wave_S[begin * FRAME : (begin + codes.shape[1]) * FRAME], codes

    def speak(self, seeds: tuple[int, ...] = (1, 2, 3, 4)) -> SpokenPart:
        return speak_part(Part(TEXT), seeds, self, RATE, FRAME_RATE)


def test_a_good_draw_is_taken_at_once() -> None:
    script = Script({1: wave(0.6, 10)})
    part = script.speak()
    assert script.seeds == [1] and part.rejected == () and not part.truncated and not part.silent
    assert torch.equal(part.wave_S, script.waves[1]) and part.codes_KT.shape == (37, 10)


@pytest.mark.parametrize(
    "bad", [wave(0, 9), wave(0, CAP), wave(0.6, CAP), wave(2.5, CAP), torch.zeros(0)]
)
def test_a_silent_or_endless_draw_is_drawn_again(bad: torch.Tensor) -> None:
    script = Script({1: bad, 2: bad, 3: wave(0.6, 10)})
    part = script.speak()
    assert script.seeds == [1, 2, 3] and part.seed == 3 and part.rejected == (1, 2)
    assert not part.truncated and not part.silent


def test_the_best_of_bad_draws_is_cut_where_speech_ends() -> None:
    script = Script({1: wave(0, 9), 2: wave(0.6, CAP), 3: wave(0, CAP), 4: wave(0.8, CAP)})
    part = script.speak()
    assert script.seeds == [1, 2, 3, 4] and part.seed == 2 and part.rejected == (1, 3, 4)
    assert part.truncated and not part.silent
    seconds = len(part.wave_S) / RATE
    assert 0.6 <= seconds <= 0.6 + 0.2 + 2 * FRAME / RATE
    assert len(part.wave_S) == part.codes_KT.shape[1] * FRAME


def test_nothing_but_silence_is_marked() -> None:
    script = Script(dict.fromkeys((1, 2, 3, 4), wave(0, CAP)))
    part = script.speak()
    assert part.silent and part.seed == 1 and part.rejected == (2, 3, 4)


def test_speech_that_goes_on_to_the_cap_is_kept_whole() -> None:
    script = Script({1: wave(CAP / FRAME_RATE, CAP)})
    assert len(script.speak((1,)).wave_S) == CAP * FRAME


def test_silence_is_by_level() -> None:
    assert is_silent(torch.zeros(0), RATE) and is_silent(wave(0, 20), RATE)
    assert not is_silent(wave(0.6, 20, peak=0.05), RATE)
    assert speech_end(wave(0, 20), RATE) == round(0.2 * RATE)


def clicks(*starts: float) -> torch.Tensor:
    """A hum with sounds of 60 ms at -20 dBFS."""
    wave_S = wave(0, CAP)
    for start in starts:
        begin = round(start * RATE)
        wave_S[begin : begin + round(0.06 * RATE)] += 0.14 * torch.sin(torch.arange(1440) * 0.1)
    return wave_S


def test_a_word_is_longer_and_louder_than_a_click() -> None:
    for nothing in (clicks(2.0), clicks(0.5, 2.0), wave(0.3, CAP, peak=0.008)):
        assert is_silent(nothing, RATE) and speech_end(nothing, RATE) == round(0.2 * RATE)
    word = wave(0.16, CAP, peak=0.1)
    assert not is_silent(word, RATE) and not is_silent(word[: 2 * FRAME], RATE)
    assert 0.3 * RATE <= speech_end(word, RATE) <= 0.5 * RATE


def test_what_follows_the_last_word_is_cut() -> None:
    word, noise_S = wave(0.6, CAP), torch.randn(CAP * FRAME, generator=torch.manual_seed(1))
    for after in (clicks(2.0), 0.006 * noise_S):
        assert 0.6 * RATE <= speech_end(word + after, RATE) <= 0.9 * RATE


def test_a_draw_with_a_late_click_is_drawn_again() -> None:
    script = Script({1: clicks(2.0), 2: wave(0.3, 6)})
    part = script.speak()
    assert part.seed == 2 and part.rejected == (1,) and not part.silent
    part = Script(dict.fromkeys((1, 2, 3, 4), clicks(2.0))).speak()
    assert part.silent and part.truncated and part.codes_KT.shape[1] == 3


def test_parts_are_joined_without_a_step() -> None:
    loud_S = torch.ones(RATE)  # the worst end: a step of full scale
    parts = [
        SpokenPart("a", pause, 1, loud_S, torch.zeros(37, 12), False, False)
        for pause in (0.0, 0.15, 0.6)
    ]
    joined_S = join_parts(parts, RATE)
    assert len(joined_S) == 3 * RATE + round(0.75 * RATE)
    assert float(joined_S.diff().abs().max()) < 0.02
    assert joined_S[0] == 0 and abs(float(joined_S[-1])) < 1e-6
    assert bool((joined_S[240 : RATE - 240] == 1).all()) and bool((loud_S == 1).all())


@pytest.mark.parametrize("samples", [0, 1, 50, 200])
def test_fades_of_short_waves(samples: int) -> None:
    assert len(fade(torch.ones(samples), RATE)) == samples
    half_S = fade(torch.ones(samples), RATE, start=False)
    assert not samples or float(half_S[-1]) == 0
