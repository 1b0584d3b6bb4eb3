"""What the language model makes of a recording's codes: each half read after the other half.

Both halves have words, and each is the other's voice, so that nothing beyond the recording is
needed. As speech, the codes have a likelihood (how plausible are they?); as a voice, they make the
other half likelier than presets do (the conditioning gain of `evaluate.acceptance`).

Shapes: S samples, K code books, T frames, V semantic codes, C acoustic channels, D width, N rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.audio.loudness import SILENCE
from voxclone.cloning.crops import UNHEARD
from voxclone.errors import AudioError
from voxclone.release.release import Release, load_preset, preset_names
from voxclone.spec import SAMPLING_RATE, SHIFT
from voxclone.tts.likelihood import OTHERS, Likelihood, likelihood, semantic_log_probs, states_of
from voxclone.tts.tts import TTS
from voxclone.voice.rows import voice_rows

LEAST_SECONDS = 2.0
"""Of a half: neither the model nor a speaker network can say much of less."""
MIDDLE = 0.25  # the cut lies within so large a part of the clip on both sides of its middle


@dataclass(frozen=True)
class Halves:
    """Where a recording is cut, in frames, and the words on both sides."""

    cut: int
    frames: int
    texts: tuple[str, str]

    def parts(self, value_xT: Tensor, scale: int = 1) -> tuple[Tensor, Tensor]:
        """Both parts of something along time, of `scale` elements a frame."""
        cut = self.cut * scale
        return value_xT[..., :cut], value_xT[..., cut:]


def quietest_cut(wave_S: Tensor, frame_size: int) -> int:
    """The frame near the middle at whose beginning it is quietest. Raises AudioError for a clip of
    which no half could be judged."""
    frames = len(wave_S) // frame_size
    least = math.ceil(LEAST_SECONDS * SAMPLING_RATE / frame_size)
    if frames < 2 * least:
        raise AudioError(
            f"The reference has {len(wave_S) / SAMPLING_RATE:.1f} s; refined codes are judged by "
            f"halves of {LEAST_SECONDS:g} s or more: give a longer recording."
        )
    power_T = wave_S[: frames * frame_size].reshape(frames, frame_size).square().mean(dim=-1)
    around_T = power_T + F.pad(power_T, (1, 0))[:-1]
    first = max(least, math.ceil(frames * (0.5 - MIDDLE)))
    last = min(frames - least, int(frames * (0.5 + MIDDLE)))
    return first + int(around_T[first : last + 1].argmin())


def heard_halves(wave_S: Tensor, frame_size: int) -> Halves:
    """The halves of a recording, with their words as the packaged recogniser hears them (it knows
    English; words misheard are misheard in everything that is compared). Raises AudioError for a
    recording that is too short, or of which a half has no sound."""
    from voxclone.models.ctc_asr import load_packaged_recognizer
    from voxclone.models.transcribers import CharacterTranscriber, transcribe_or_empty

    cut = quietest_cut(wave_S, frame_size)
    parts = (wave_S[: cut * frame_size], wave_S[cut * frame_size :])
    for part_S, side in zip(parts, ("before", "after"), strict=True):
        if float(part_S.abs().max()) < SILENCE:
            raise AudioError(
                f"The reference has no sound {side} {cut * frame_size / SAMPLING_RATE:.1f} s, and "
                "refined codes are judged by halves: cut the silence off, or give a recording with "
                "more speech.",
                "silent",
            )
    recogniser = CharacterTranscriber(load_packaged_recognizer())
    texts = [transcribe_or_empty(recogniser, part_S).strip() or UNHEARD for part_S in parts]
    return Halves(cut, len(wave_S) // frame_size, (texts[0], texts[1]))


@dataclass(frozen=True)
class Opinion:
    """Log-probabilities of semantic codes [T, V], and the states [T, D] (projected for the acoustic
    head) that predict each frame."""

    log_TV: Tensor
    state_TD: Tensor


@torch.no_grad()
def read(model: TTS, halves: Halves, codes_KT: Tensor) -> Opinion:
    """What the model thinks of codes, each half read after the other one as its voice."""
    parts = halves.parts(codes_KT)
    logs, states = [], []
    for this, text in enumerate(halves.texts):
        voice_KT, spoken_KT = parts[1 - this], parts[this]
        shifted_TK = spoken_KT.T + SHIFT
        logs.append(semantic_log_probs(model, voice_KT, text, shifted_TK))
        rows_ND = _rows(model, voice_KT)
        state_TD = states_of(model, rows_ND, text, shifted_TK)[:-1]
        states.append(model.head.llm_projection(state_TD))
    return Opinion(torch.cat(logs), torch.cat(states))


def flow_loss(model: TTS, state_TD: Tensor, value_CT: Tensor, generator: torch.Generator) -> Tensor:
    """Squared error of the flow's velocity at one random time for each frame, with gradients to the
    values [C, T] of the levels."""
    data_TC = value_CT.T
    noise_TC = torch.randn(data_TC.shape, generator=generator).to(data_TC)
    time_T = torch.rand(len(data_TC), generator=generator).to(data_TC.device)
    return model.head.error(data_TC, noise_TC, time_T, state_TD).square().mean()


@dataclass
class GainJudge:
    """By how many nats a frame each half is likelier after the other half's codes than after
    presets. The halves to be predicted have the codes `truth`, the encoder's: codes that are judged
    by how well they foretell themselves are best where they are noise."""

    model: TTS
    halves: Halves
    strangers: Sequence[Tensor]
    truth_KT: Tensor
    known: list[float] = field(default_factory=list)

    @classmethod
    def load(cls, model: TTS, release: Release, halves: Halves, truth_KT: Tensor) -> "GainJudge":
        """Strangers are up to three presets of the release."""
        names = preset_names(release)
        step = max(1, len(names) // OTHERS)
        strangers = [load_preset(release, name) for name in names[::step][:OTHERS]]
        return cls(model, halves, strangers, truth_KT)

    def __call__(self, codes_KT: Tensor) -> float:
        """The gain, mean of both halves; the likelihood alone (negative) without presets."""
        targets, voices = self.halves.parts(self.truth_KT), self.halves.parts(codes_KT)
        own = [self._cost(_rows(self.model, voices[1 - i]), i, targets[i]) for i in (0, 1)]
        if not self.known:
            self.known = [
                sum(costs) / len(costs) if costs else 0.0
                for i in (0, 1)
                for costs in [[self._cost(each, i, targets[i]) for each in self.strangers]]
            ]
        return sum(a - b for a, b in zip(self.known, own, strict=True)) / 2

    def _cost(self, rows_ND: Tensor, this: int, codes_KT: Tensor) -> float:
        found = likelihood(self.model, rows_ND, self.halves.texts[this], codes_KT)
        return nats(found, self.model.head.channels)


def nats(found: Likelihood, channels: int) -> float:
    """One figure of both streams, in nats a frame: the flow's squared error as the variance of a
    Gaussian for each channel, up to a constant."""
    return found.semantic + channels / 2 * math.log(max(found.flow, 1e-9))


def _rows(model: TTS, codes_KT: Tensor) -> Tensor:
    table_VD, offsets_K = model.backbone.audio_table.weight, model.backbone.offsets_K
    return voice_rows(codes_KT.to(table_VD.device), table_VD, offsets_K.tolist())
