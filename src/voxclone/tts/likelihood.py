"""The likelihood of given speech under the model, after a given voice and text.

It is the model's own pretraining loss: the cross-entropy of semantic codes and the squared error of
the flow's velocity (arXiv 2603.25551, 3.1). Codes unlike those of the training have a high loss,
whatever they sound like.

Shapes: K codebooks, T frames, N frames of a voice embedding, D width, L prompt positions,
V semantic outputs, C acoustic channels, R draws.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.codec.quantizer import to_values
from voxclone.release.release import Release, load_preset, preset_names
from voxclone.spec import EMPTY_AUDIO, END_AUDIO, SHIFT
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.tts import TTS

COMPARED_SPEAKERS = 3
"""How many other speakers' voices conditioning gain is measured against."""


@dataclass(frozen=True)
class Likelihood:
    """`semantic` is the cross-entropy in nats per frame (the end counts as one), `flow` the mean
    squared error of the velocity per acoustic channel. Lower is likelier."""

    semantic: float
    flow: float
    frames: int


@torch.inference_mode()
def likelihood(
    tts: TTS,
    voice_ND: Tensor,
    text: str,
    codes_KT: Tensor,
    *,
    draws: int = 4,
    seed: int = 0,
) -> Likelihood:
    """The model's loss on `codes` [K, T] (without the +2) as speech of `text` after a voice [N, D].

    The flow is evaluated at `draws` times for each frame, with noise from `seed`. Two calls with
    the same seed have the same noise, so their difference is exact with few draws.
    """
    head, device = tts.head, tts.device
    shifted_TK = codes_KT.T.to(device) + SHIFT
    hidden_TD = hidden_states(tts, voice_ND, text, shifted_TK)
    logits_TV = head.mask_semantic(head.semantic_logits(hidden_TD))
    end = torch.tensor([END_AUDIO], device=device)
    target_T = torch.cat([shifted_TK[:, 0], end])
    usable = slice(EMPTY_AUDIO + 1, SHIFT + head.semantic_size)
    semantic = F.cross_entropy(logits_TV[:, usable].float(), target_T - usable.start)
    flow = _flow_error(head, hidden_TD[:-1], shifted_TK[:, 1:] - SHIFT, draws, seed)
    return Likelihood(float(semantic), flow, len(shifted_TK))


def hidden_states(tts: TTS, voice_ND: Tensor, text: str, shifted_TK: Tensor) -> Tensor:
    """Hidden states [T + 1, D] that predict each frame of given speech (codes [T, K] in the
    +2-shifted space) and its end, after a voice [N, D] and a text."""
    backbone, prompt_LD = tts.backbone, tts.prompt(text, voice_ND)
    speech_TD = backbone.embed_codes(shifted_TK.to(tts.device))
    hidden_BLD = backbone(torch.cat([prompt_LD, speech_TD])[None])
    states_TD: Tensor = hidden_BLD[0, len(prompt_LD) - 1 :]
    return states_TD


def _flow_error(
    head: AcousticHead, hidden_TD: Tensor, level_TC: Tensor, draws: int, seed: int
) -> float:
    generator = torch.Generator().manual_seed(seed)
    device = hidden_TD.device
    data_TC = to_values(level_TC, head.levels)
    noise_RTC = torch.randn((draws, *data_TC.shape), generator=generator).to(device)
    times_R = (torch.arange(draws, device=device) + 0.5) / draws
    projected_TD = head.llm_projection(hidden_TD)
    errors = [
        head.error(data_TC, noise_TC, time[None], projected_TD).square().mean()
        for time, noise_TC in zip(times_R, noise_RTC, strict=True)
    ]
    return float(torch.stack(errors).mean())


def semantic_log_probs(tts: TTS, voice_KT: Tensor, text: str, shifted_TK: Tensor) -> Tensor:
    """Log-probabilities [T, V] of the semantic code of each frame, after a voice (codes [K, N]), a
    text and the frames before it (shifted codes [T, K])."""
    states_TD = hidden_states(tts, tts.embed_voice(voice_KT), text, shifted_TK)[:-1]
    usable = slice(SHIFT, SHIFT + tts.head.semantic_size)
    log_prob_TV: Tensor = tts.head.semantic_logits(states_TD)[:, usable].log_softmax(dim=-1)
    return log_prob_TV.to(shifted_TK.device)


def other_speakers(release: Release) -> list[Tensor]:
    """Embeddings [N, D] of some presets, spread over all of them: the voices of other speakers,
    against which conditioning gain is measured."""
    names = preset_names(release)
    step = max(1, len(names) // COMPARED_SPEAKERS)
    return [load_preset(release, name) for name in names[::step][:COMPARED_SPEAKERS]]
