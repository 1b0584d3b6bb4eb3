"""Does the language model accept the codes of an encoder as a voice?

*Conditioning gain* is how much likelier an utterance becomes with a voice of its own speaker than
with voices of other speakers: in nats per frame (semantic codes) and in squared error (flow). Codes
without speaker information, or from another distribution than the model's, have no gain.

Shapes: K codebooks, T frames, N voice embeddings, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.evaluate.progress import Track, untracked
from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.tts.likelihood import COMPARED_SPEAKERS, Likelihood, likelihood
from voxclone.tts.tts import TTS


@dataclass(frozen=True)
class Trial:
    """Text and codes [K, T] of one utterance, and the voice [N, D] of its speaker."""

    speaker: str
    voice_ND: Tensor
    text: str
    codes_KT: Tensor


@dataclass(frozen=True)
class ConditioningGain:
    """Means over speakers. `semantic_nll` and `flow_error` are those with the own voice; a gain is
    the same with other voices minus that, so more is better."""

    semantic_nll: Interval
    flow_error: Interval
    semantic_gain: Interval
    flow_gain: Interval
    trials: int
    speakers: int


def conditioning_gain(
    model: TTS, trials: Sequence[Trial], *, seed: int = 0, track: Track = untracked
) -> ConditioningGain | None:
    """Compare each trial's own voice with the voices of up to three other speakers.

    None with fewer than two speakers.
    """
    if len({trial.speaker for trial in trials}) < 2:
        return None
    own, gains = trial_gains(model, trials, seed=seed, track=track)
    speakers = [trial.speaker for trial in trials]
    return ConditioningGain(
        semantic_nll=bootstrap([each.semantic for each in own], speakers),
        flow_error=bootstrap([each.flow for each in own], speakers),
        semantic_gain=bootstrap([semantic for semantic, _ in gains], speakers),
        flow_gain=bootstrap([flow for _, flow in gains], speakers),
        trials=len(trials),
        speakers=len(set(speakers)),
    )


def trial_gains(
    model: TTS, trials: Sequence[Trial], *, seed: int = 0, track: Track = untracked
) -> tuple[list[Likelihood], list[tuple[float, float]]]:
    """The likelihood of each trial with its own voice, and its semantic and flow gain. Trials are
    of two or more speakers."""
    voices = {trial.speaker: trial.voice_ND for trial in reversed(trials)}
    generator = torch.Generator().manual_seed(seed)
    names = sorted(voices)
    own, gains = [], []
    for trial in track(trials, "likelihoods"):
        others = [name for name in names if name != trial.speaker]
        order = torch.randperm(len(others), generator=generator)[:COMPARED_SPEAKERS].tolist()
        matched, *mismatched = (
            likelihood(model, voice_ND, trial.text, trial.codes_KT, seed=seed)
            for voice_ND in (trial.voice_ND, *(voices[others[i]] for i in order))
        )
        semantic = sum(each.semantic for each in mismatched) / len(mismatched)
        flow = sum(each.flow for each in mismatched) / len(mismatched)
        own.append(matched)
        gains.append((semantic - matched.semantic, flow - matched.flow))
    return own, gains
