"""Utterances spoken together: each as if alone, whoever joins, leaves or is dropped."""

import pytest
import torch

from tests.helpers.tiny_release import write_tiny_release
from voxclone.release.release import Release, load_preset
from voxclone.tts.endings import fade
from voxclone.tts.streams import SpeechChunk, Streams, Utterance
from voxclone.tts.text import Part
from voxclone.tts.tts import TTS


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random model never ends by itself. After some hundred frames, the rounding of a larger
    batch turns a draw that is nearly even, and what follows differs."""
    monkeypatch.setattr("voxclone.tts.streams.frame_cap", lambda text, rate: 20 + len(text))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return Release.open(write_tiny_release(tmp_path_factory.mktemp("streams") / "release"))


@pytest.fixture(scope="module")
def tts(release: Release) -> TTS:
    return TTS.load(release)


@pytest.fixture(scope="module")
def utterances(release: Release) -> list[Utterance]:
    """Texts of several parts; the random model rarely ends, so most reach their cap."""
    texts = (["One two.", "Three."], ["Four and five and six."], ["Hi.", "Ho.", "He."])
    voices = [load_preset(release, name) for name in ("anna", "bert", "carla")]
    return [
        Utterance([Part(text, 0.1 * n) for n, text in enumerate(parts)], voice_ND, seed, cfg)
        for parts, voice_ND, seed, cfg in zip(
            texts, voices, (5, 6, 7), (1.2, 1.2, 3.0), strict=True
        )
    ]


def run(
    streams: Streams, utterance: Utterance, chunks: list[SpeechChunk] | None = None
) -> list[SpeechChunk]:
    found = list(chunks or [])
    while len(streams):
        found += streams.step()
    return [chunk for chunk in found if chunk.utterance is utterance]


def wave(chunks: list[SpeechChunk]) -> torch.Tensor:
    return torch.cat([chunk.wave_S for chunk in chunks])


def codes(chunks: list[SpeechChunk]) -> torch.Tensor:
    return torch.cat([chunk.codes_KT for chunk in chunks], dim=-1)


def alone(tts: TTS, utterance: Utterance) -> list[SpeechChunk]:
    streams = tts.streams()
    streams.add(utterance)
    return run(streams, utterance)


def test_together_each_is_spoken_as_alone(tts: TTS, utterances: list[Utterance]) -> None:
    streams = tts.streams()
    chunks: list[SpeechChunk] = []
    for utterance in utterances:  # each joins while others are in the middle of a part
        streams.add(utterance)
        for _ in range(3):
            chunks += streams.step()
    while len(streams):
        chunks += streams.step()
    for utterance in utterances:
        own = [chunk for chunk in chunks if chunk.utterance is utterance]
        expected = alone(tts, utterance)
        assert torch.equal(codes(own), codes(expected))
        loudest = float(wave(expected).abs().max())
        torch.testing.assert_close(wave(own), wave(expected), atol=1e-4 * loudest, rtol=0)
        assert [chunk.ended for chunk in own] == [False] * (len(own) - 1) + [True]
        assert [p.part for p in own if p.part_ended] == list(range(len(utterance.parts)))


def test_parts_are_joined_by_pauses_and_fades(tts: TTS, utterances: list[Utterance]) -> None:
    """As `speech.join_parts` joins them."""
    rate, pieces = tts.codec.sampling_rate, []
    chunks = alone(tts, utterances[2])
    for number in range(3):
        part_S = wave([chunk for chunk in chunks if chunk.part == number])
        pieces += [torch.zeros(round(0.1 * number * rate)), fade(part_S, rate)]
    joined_S = torch.cat([chunk.joined_wave(rate) for chunk in chunks])
    assert torch.equal(joined_S, torch.cat(pieces))


def test_first_piece_comes_early(tts: TTS, utterances: list[Utterance]) -> None:
    streams = tts.streams()
    streams.add(utterances[1])
    steps = 0
    while not (chunks := streams.step()):
        steps += 1
    assert steps + 1 <= 5 and chunks[0].codes_KT.shape[1] == steps + 1


def test_who_is_dropped_takes_nothing_along(tts: TTS, utterances: list[Utterance]) -> None:
    first, second, third = utterances
    streams = tts.streams()
    for utterance in utterances:
        streams.add(utterance)
    chunks = streams.step() + streams.step()
    streams.drop([first])
    assert len(streams) == 2
    streams.drop([first])  # again, and of nobody: nothing happens
    left = list(chunks)
    while len(streams):
        left += streams.step()
    assert not any(chunk.utterance is first and chunk.part_ended for chunk in left)
    for utterance in (second, third):
        own = [chunk for chunk in left if chunk.utterance is utterance]
        assert torch.equal(codes(own), codes(alone(tts, utterance)))
    streams.add(first)  # and what was dropped may come back
    assert torch.equal(codes(run(streams, first)), codes(alone(tts, first)))


def test_who_is_held_begins_no_new_part(tts: TTS, utterances: list[Utterance]) -> None:
    utterance = utterances[2]
    streams = tts.streams()
    streams.add(utterance)
    chunks: list[SpeechChunk] = []
    for _ in range(20):
        chunks += streams.step([utterance])
    assert not chunks and len(streams) == 1
    while not chunks or not chunks[-1].part_ended:
        chunks += streams.step()
    held = [streams.step([utterance]) for _ in range(20)]
    assert not any(held) and len(streams) == 1
    assert torch.equal(codes(run(streams, utterance, chunks)), codes(alone(tts, utterance)))
