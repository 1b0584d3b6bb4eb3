"""The language model on a recording's codes: each half is predicted after the other half.

Both halves have words, and each is the voice of the other, so that nothing beyond the recording is
needed. As speech, codes have a likelihood. As a voice, they have a conditioning gain: the other
half is likelier after them than after presets.

Shapes: K codebooks, T frames, V semantic codes, C acoustic channels, D width, N frames of a voice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from voxclone.cloning.refine.halves import Halves
from voxclone.release.release import Release
from voxclone.spec import SHIFT
from voxclone.tts.likelihood import (
    Likelihood,
    hidden_states,
    likelihood,
    other_speakers,
    semantic_log_probs,
)
from voxclone.tts.tts import TTS


@dataclass(frozen=True)
class Prediction:
    """Log-probabilities of semantic codes [T, V], and the states [T, D] (projected for the acoustic
    head) that predict each frame."""

    log_TV: Tensor
    state_TD: Tensor


@torch.no_grad()
def predict(tts: TTS, halves: Halves, codes_KT: Tensor) -> Prediction:
    """The model's prediction of codes, each half with the other one as its voice."""
    parts = halves.parts(codes_KT)
    logs, states = [], []
    for this, text in enumerate(halves.texts):
        voice_KT, speech_KT = parts[1 - this], parts[this]
        shifted_TK = speech_KT.T + SHIFT
        logs.append(semantic_log_probs(tts, voice_KT, text, shifted_TK))
        state_TD = hidden_states(tts, tts.embed_voice(voice_KT), text, shifted_TK)[:-1]
        states.append(tts.head.llm_projection(state_TD))
    return Prediction(torch.cat(logs), torch.cat(states))


def flow_loss(tts: TTS, state_TD: Tensor, value_CT: Tensor, generator: torch.Generator) -> Tensor:
    """Squared error of the flow's velocity at one random time for each frame, with gradients to the
    values [C, T] of the levels."""
    data_TC = value_CT.T
    noise_TC = torch.randn(data_TC.shape, generator=generator).to(data_TC)
    time_T = torch.rand(len(data_TC), generator=generator).to(data_TC.device)
    return tts.head.error(data_TC, noise_TC, time_T, state_TD).square().mean()


@dataclass
class ConditioningGain:
    """By how many nats a frame each half is likelier after the other half's codes than after
    presets. The halves to predict have the encoder's codes `target`: codes that predict themselves
    best would be noise."""

    tts: TTS
    halves: Halves
    presets: Sequence[Tensor]
    target_KT: Tensor
    baseline: list[float] = field(default_factory=list)

    @classmethod
    def load(
        cls, tts: TTS, release: Release, halves: Halves, target_KT: Tensor
    ) -> "ConditioningGain":
        """With presets of the release for other speakers."""
        return cls(tts, halves, other_speakers(release), target_KT)

    def __call__(self, codes_KT: Tensor) -> float:
        """The gain, mean of both halves; the negative loss alone without presets."""
        targets, voices = self.halves.parts(self.target_KT), self.halves.parts(codes_KT)
        own = [self._loss(self.tts.embed_voice(voices[1 - i]), i, targets[i]) for i in (0, 1)]
        if not self.baseline:
            self.baseline = [self._baseline(i, targets[i]) for i in (0, 1)]
        return sum(a - b for a, b in zip(self.baseline, own, strict=True)) / 2

    def _baseline(self, half: int, codes_KT: Tensor) -> float:
        losses = [self._loss(voice_ND, half, codes_KT) for voice_ND in self.presets]
        return sum(losses) / len(losses) if losses else 0.0

    def _loss(self, voice_ND: Tensor, half: int, codes_KT: Tensor) -> float:
        found = likelihood(self.tts, voice_ND, self.halves.texts[half], codes_KT)
        return total_nats(found, self.tts.head.channels)


def total_nats(found: Likelihood, channels: int) -> float:
    """The loss of both streams in nats a frame: the flow's squared error is taken as the variance
    of a Gaussian for each channel, up to a constant."""
    return found.semantic + channels / 2 * math.log(max(found.flow, 1e-9))
