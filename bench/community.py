"""The community's way to the codes of a recording, for comparison: thousands of Adam steps on
Gumbel semantic logits and free acoustic values through the frozen decoder.

Written after the description of MarvinRomson/voxtral-tts-codes-for-audio (semantic: Gumbel noise,
hard forward, soft backward; acoustic: tanh, rounded straight through; L1 0.5, multi-resolution STFT
1, log-mel 1, MFCC 1, speaker 0.5; Adam 0.1, cosine to 1 %, gradients clipped at 1, temperature
x 0.995 a step from 1 to 0.5). Its speaker network is ECAPA; here it is the packaged GE2E.

Shapes: B batch, S samples, K code books, T frames, V semantic codes, C acoustic channels, M bands.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.audio.spectrum import mel_spectrogram
from voxclone.codec.model import Codec
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.train.losses import stft_loss

RATE, FINAL_SHARE, CLIP = 0.1, 0.01, 1.0
COOLING, COOLEST = 0.995, 0.5
FFT, HOP, BANDS, COEFFICIENTS = 2048, 512, 128, 40
LEAST = 1e-5


@dataclass(frozen=True)
class Found:
    """Codes [K, T] after so many steps and so many seconds of this process' own time."""

    step: int
    seconds: float
    codes_KT: Tensor


def optimise(
    codec: Codec, wave_S: Tensor, *, steps: int, at: Sequence[int], seed: int
) -> Iterator[Found]:
    """The codes after each of the steps `at`; the waveform is a whole number of frames."""
    generator = torch.Generator().manual_seed(seed)
    quantizer = codec.quantizer
    vectors_VD = quantizer.semantic_codebook.vectors()
    frames = len(wave_S) // codec.frame_size
    logits_TV = (0.1 * torch.randn(frames, len(vectors_VD), generator=generator)).requires_grad_()
    free_CT = 0.1 * torch.randn(codec.config.acoustic_dim, frames, generator=generator)
    free_CT.requires_grad_()
    optimiser = torch.optim.Adam([logits_TV, free_CT], lr=RATE)
    embedder = Ge2eEmbedder.load()
    target_BE = embedder.embed_batch(wave_S[None])
    begun = time.process_time()
    for step in range(steps):
        for group in optimiser.param_groups:
            share = 0.5 * (1 + math.cos(math.pi * step / steps))
            group["lr"] = RATE * (FINAL_SHARE + (1 - FINAL_SHARE) * share)
        temperature = max(COOLEST, COOLING**step)
        uniform_TV = torch.rand(logits_TV.shape, generator=generator).clamp(1e-9, 1 - 1e-9)
        noisy_TV = logits_TV - (-uniform_TV.log()).log()
        soft_TV = (noisy_TV / temperature).softmax(dim=-1)
        hard_TV = F.one_hot(soft_TV.argmax(dim=-1), len(vectors_VD)).float()
        semantic_DT = ((hard_TV - soft_TV).detach() + soft_TV).matmul(vectors_VD).T
        value_CT = free_CT.tanh()
        snapped_CT = quantizer.values_of(quantizer.levels_of(free_CT.detach()))
        acoustic_CT = value_CT + (snapped_CT - value_CT).detach()
        made_BS = codec.decoder(torch.cat([semantic_DT, acoustic_CT])[None])
        loss = _loss(made_BS, wave_S[None])
        loss = loss + 0.5 * (1 - (embedder.embed_batch(made_BS) * target_BE).sum(dim=-1).mean())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([logits_TV, free_CT], CLIP)
        optimiser.step()
        if step + 1 in at:
            with torch.no_grad():
                codes_KT = torch.cat([logits_TV.argmax(dim=-1)[None], quantizer.levels_of(free_CT)])
            yield Found(step + 1, time.process_time() - begun, codes_KT)


def _loss(made_BS: Tensor, wave_BS: Tensor) -> Tensor:
    logs = [
        mel_spectrogram(x_BS, FFT, HOP, BANDS).clamp(min=LEAST).log() for x_BS in (made_BS, wave_BS)
    ]
    transform_MC = _cosines()
    cepstra = [x_BMT.transpose(1, 2) @ transform_MC for x_BMT in logs]
    return (
        0.5 * F.l1_loss(made_BS, wave_BS)
        + stft_loss(made_BS, wave_BS)
        + F.l1_loss(*logs)
        + F.l1_loss(*cepstra)
    )


def _cosines() -> Tensor:
    """The orthonormal DCT-II of MFCCs [M, C]."""
    band_M = torch.arange(BANDS) + 0.5
    order_C = torch.arange(COEFFICIENTS)
    table_MC = torch.cos(math.pi / BANDS * band_M[:, None] * order_C) * math.sqrt(2 / BANDS)
    table_MC[:, 0] /= math.sqrt(2)
    return table_MC
