"""The batch of fixed shapes gives what the growing one gives, and on a GPU its graphs give what the
same steps give one by one."""

from collections.abc import Callable

import pytest
import torch

from voxclone.release.release import Release, load_preset
from voxclone.tts import static_batch
from voxclone.tts.batch import Batch, Sampling
from voxclone.tts.static_batch import StaticBatch
from voxclone.tts.tts import TTS

TEXTS = {"anna": "One.", "bert": "Two and three and four.", "carla": "Five, six."}
SAMPLINGS = [Sampling(), Sampling(cfg=3.0), Sampling(temperature=0.8)]


@pytest.fixture(scope="module")
def prompts(tiny_tts: TTS, tiny_release: Release) -> list[torch.Tensor]:
    return [tiny_tts.prompt(text, load_preset(tiny_release, name)) for name, text in TEXTS.items()]


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@torch.inference_mode()
def together(
    batches: list[Batch | StaticBatch], prompts: list[torch.Tensor], frames: int
) -> list[tuple[torch.Tensor, ...]]:
    """Frames and states of batches that all read the frames of the first: a prompt, two that join
    it, and then the last two."""
    found = []
    for batch in batches:
        batch.admit(prompts[:1], generators(1), SAMPLINGS[:1])
    for step in range(frames):
        drawn = [batch.draw() for batch in batches]
        found.append((*drawn, *(batch.hidden_BD.clone() for batch in batches)))
        for batch in batches:
            batch.advance(drawn[0])
            if step == frames // 3:
                batch.admit(prompts[1:], generators(2), SAMPLINGS[1:])
            if step == 2 * frames // 3:
                batch.keep([1, 2])
    return found


def test_fixed_shapes_give_the_frames_of_the_growing_cache(
    tiny_tts: TTS, prompts: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is small, so that it doubles while prompts are in progress."""
    monkeypatch.setattr(static_batch, "POSITIONS", 8)
    pair: list[Batch | StaticBatch] = [
        kind(tiny_tts.backbone, tiny_tts.head) for kind in (Batch, StaticBatch)
    ]
    for frame_BK, static_BK, hidden_BD, static_BD in together(pair, prompts, 30):
        assert torch.equal(frame_BK, static_BK)
        torch.testing.assert_close(static_BD, hidden_BD, rtol=0, atol=1e-4)


def test_a_cache_that_has_room_is_captured_once(
    tiny_tts: TTS, prompts: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    captures = []
    batch = StaticBatch(tiny_tts.backbone, tiny_tts.head)

    def counted(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
        captures.append(step)
        return step

    monkeypatch.setattr(static_batch, "captured", counted)
    with torch.inference_mode():
        batch.admit(prompts, generators(3), SAMPLINGS)
        for _ in range(5):
            batch.advance(batch.draw())
        batch.keep([0])
        batch.advance(batch.draw())
    assert len(captures) == 2


@pytest.mark.gpu
def test_graphs_give_what_single_steps_give(
    tiny_release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    tts = TTS.load(tiny_release, device="cuda", dtype=torch.float32)
    prompts = [tts.prompt(text, load_preset(tiny_release, name)) for name, text in TEXTS.items()]
    monkeypatch.setattr(static_batch, "POSITIONS", 8)
    graphs = together([StaticBatch(tts.backbone, tts.head)], prompts, 30)
    monkeypatch.setattr(static_batch, "captured", lambda step, device: step)
    steps = together([StaticBatch(tts.backbone, tts.head)], prompts, 30)
    for replayed, stepped in zip(graphs, steps, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(replayed, stepped, strict=True))
