"""Batches are made ahead of the step that takes them, and are those of their steps."""

import threading
import time

import pytest
import torch

from voxclone.codec.quantizer import draw_quantization
from voxclone.data.augment import Degradation
from voxclone.data.corpus import PackedCorpus
from voxclone.data.manifest import Clip
from voxclone.errors import AudioError
from voxclone.rng import step_generator
from voxclone.train.batch import (
    CROPS,
    OF_CROPS,
    MicroBatch,
    PairSource,
    Prefetcher,
    item_generators,
)


def test_the_next_batches_are_made_while_a_step_computes() -> None:
    made, third = list[int](), threading.Event()

    def make(step: int) -> int:
        made.append(step)
        if step == 2:
            third.set()
        return 10 * step

    batches = Prefetcher(make, steps=4)
    assert batches.take(0) == 0
    assert third.wait(10)  # nobody has asked for step 1 or 2
    assert [batches.take(step) for step in (1, 2, 3)] == [10, 20, 30]
    assert made == [0, 1, 2, 3]  # each once, and none after the last


def test_any_step_may_follow_any_other() -> None:
    batches = Prefetcher(lambda step: step, steps=10)
    assert [batches.take(step) for step in (3, 3, 0, 9, 4, 12)] == [3, 3, 0, 9, 4, 12]


def test_an_error_is_that_of_its_step() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise AudioError("c1 cannot be read.")
        return step

    batches = Prefetcher(make, steps=4)
    assert [batches.take(step) for step in (0, 1)] == [0, 1]
    with pytest.raises(AudioError, match="c1 cannot"):
        batches.take(2)
    assert batches.take(3) == 3


@pytest.mark.slow
def test_no_step_of_50_ms_waits_for_the_batches_of_the_real_size() -> None:
    """16 crops and 8 pairs of 4 s, as in voxtral_4b.yaml, on idle cores."""
    seconds, rate = 60, 24000
    clips = [Clip(f"c{i}", __file__, f"s{i}", seconds) for i in range(20)]  # type: ignore[arg-type]
    noise = (1000 * torch.randn(len(clips) * seconds * rate)).to(torch.int16).numpy()
    starts = [i * seconds * rate for i in range(len(clips) + 1)]
    speech = PackedCorpus(clips, starts, noise).subset(lambda clip: True)
    weights_N = speech.weights(0.7)
    genuine = [torch.randint(21, (37, 120)) for _ in range(100)]
    degradation = Degradation(snr_db=(20, 45), rough_db=3)
    pairs = PairSource(genuine, 20, 8, 50, 50 * 1920, degradation)

    def make(step: int) -> object:
        crops = speech.crops(16, 50 * 1920, step_generator(0, step, CROPS), weights_N)
        draws = draw_quantization(36, 50, item_generators(0, step, OF_CROPS, slice(0, 16)))
        return pairs.draw(0, step, MicroBatch()), crops, draws

    batches, waited = Prefetcher(make, steps=40), list[float]()
    for step in range(40):
        begun = time.perf_counter()
        batches.take(step)
        waited.append(time.perf_counter() - begun)
        time.sleep(0.05)
    print(f"\nthe first step waits {waited[0]:.3f} s, the slowest other {max(waited[1:]):.4f} s")
    assert max(waited[3:]) < 0.005
