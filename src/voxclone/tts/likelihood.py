"""How likely the model finds given speech after a given voice and text.

The released model can still be asked for its own pretraining loss: the cross-entropy of semantic
codes and the squared error of the flow's velocity (arXiv 2603.25551, 3.1). Speech whose codes are
not of the kind that the model was trained on is unlikely under it, whatever it sounds like.

Shapes: K code books, T frames, N voice rows, D width, L prompt positions, V semantic outputs,
C acoustic channels, R draws.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.codec.quantizer import to_values
from voxclone.spec import EMPTY_AUDIO, END_AUDIO, SHIFT
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.tts import TTS
from voxclone.voice.rows import voice_rows

OTHERS = 3
"""So many other voices a likelihood is compared with."""


@dataclass(frozen=True)
class Likelihood:
    """`semantic` is in nats per frame (the end counts as one); `flow` is the mean squared error of
    the velocity per acoustic channel; both less where the model finds the speech more likely."""

    semantic: float
    flow: float
    frames: int


@torch.inference_mode()
def likelihood(
    speaker: TTS,
    voice_ND: Tensor,
    text: str,
    codes_KT: Tensor,
    *,
    draws: int = 4,
    seed: int = 0,
) -> Likelihood:
    """The model's loss on `codes` [K, T] (without the +2) as speech of `text` after a voice [N, D].

    The flow is asked at `draws` times for each frame, with noise from `seed`: two calls with the
    same seed differ by what they are given alone, so their difference is exact in few draws.
    """
    head, device = speaker.head, speaker.device
    shifted_TK = codes_KT.T.to(device) + SHIFT
    hidden_TD = states_of(speaker, voice_ND, text, shifted_TK)
    logits_TV = head.mask_semantic(head.semantic_logits(hidden_TD))
    end = torch.tensor([END_AUDIO], device=device)
    target_T = torch.cat([shifted_TK[:, 0], end])
    usable = slice(EMPTY_AUDIO + 1, SHIFT + head.semantic_size)
    semantic = F.cross_entropy(logits_TV[:, usable].float(), target_T - usable.start)
    flow = _flow_error(head, hidden_TD[:-1], shifted_TK[:, 1:] - SHIFT, draws, seed)
    return Likelihood(float(semantic), flow, len(shifted_TK))


def states_of(speaker: TTS, voice_ND: Tensor, text: str, shifted_TK: Tensor) -> Tensor:
    """Hidden states [T + 1, D] that predict each frame of given speech (codes [T, K] in the
    +2-shifted space) after a voice [N, D] and a text, and then the end."""
    backbone, prompt_LD = speaker.backbone, speaker.prompt(text, voice_ND)
    spoken_TD = backbone.embed_codes(shifted_TK.to(speaker.device))
    hidden_BLD = backbone(torch.cat([prompt_LD, spoken_TD])[None])
    states_TD: Tensor = hidden_BLD[0, len(prompt_LD) - 1 :]
    return states_TD


def semantic_log_probs(speaker: TTS, voice_KT: Tensor, text: str, shifted_TK: Tensor) -> Tensor:
    """Log-probabilities [T, V] of the semantic code of each frame after a voice [K, N], a text and
    the frames before it (codes [T, K] in the +2-shifted space)."""
    backbone, head = speaker.backbone, speaker.head
    offsets = backbone.offsets_K.tolist()
    voice_ND = voice_rows(voice_KT.to(speaker.device), backbone.audio_table.weight, offsets)
    logits_TV = head.semantic_logits(states_of(speaker, voice_ND, text, shifted_TK)[:-1])
    usable = slice(SHIFT, SHIFT + head.semantic_size)
    log_TV: Tensor = logits_TV[:, usable].log_softmax(dim=-1)
    return log_TV.to(shifted_TK.device)


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
