"""Does the model accept the codes of an encoder as a voice?

*Conditioning gain*: how much likelier an utterance is after another one of the same speaker than
after one of somebody else, in nats per frame (semantic) and in squared error (flow). An encoder
whose codes say nothing of the speaker, or not in the model's language, has none.

Shapes: K code books, T frames, N voice rows, D width.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.tts.likelihood import OTHERS, Likelihood, likelihood
from voxclone.tts.tts import TTS


@dataclass(frozen=True)
class Trial:
    """An utterance to be judged (its text and codes) and the voice of its speaker."""

    speaker: str
    voice_ND: Tensor
    text: str
    codes_KT: Tensor


@dataclass(frozen=True)
class Acceptance:
    """Means over trials, speakers alike. Gains are shuffled minus matched: more is better."""

    semantic: Interval
    flow: Interval
    semantic_gain: Interval
    flow_gain: Interval
    trials: int
    speakers: int


def acceptance(
    model: TTS,
    trials: Sequence[Trial],
    *,
    seed: int = 0,
    track: Callable[[Iterable[Trial]], Iterable[Trial]] = iter,
) -> Acceptance | None:
    """Judge each trial after its own voice and after the voices of up to three other speakers.
    None if there are fewer than two speakers: nothing could be shuffled."""
    voices: dict[str, list[Tensor]] = {}
    for trial in trials:
        voices.setdefault(trial.speaker, []).append(trial.voice_ND)
    if len(voices) < 2:
        return None
    generator = torch.Generator().manual_seed(seed)
    names = sorted(voices)
    own: list[Likelihood] = []
    gains: list[tuple[float, float]] = []
    speakers: list[str] = []
    for trial in track(trials):
        others = [name for name in names if name != trial.speaker]
        order = torch.randperm(len(others), generator=generator)[:OTHERS].tolist()
        matched = likelihood(model, trial.voice_ND, trial.text, trial.codes_KT, seed=seed)
        shuffled = [
            likelihood(model, voices[others[i]][0], trial.text, trial.codes_KT, seed=seed)
            for i in order
        ]
        semantic = sum(each.semantic for each in shuffled) / len(shuffled) - matched.semantic
        flow = sum(each.flow for each in shuffled) / len(shuffled) - matched.flow
        own.append(matched)
        gains.append((semantic, flow))
        speakers.append(trial.speaker)
    return Acceptance(
        bootstrap([each.semantic for each in own], speakers),
        bootstrap([each.flow for each in own], speakers),
        bootstrap([semantic for semantic, _ in gains], speakers),
        bootstrap([flow for _, flow in gains], speakers),
        len(trials),
        len(voices),
    )
