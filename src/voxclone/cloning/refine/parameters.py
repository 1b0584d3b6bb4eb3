"""Codes as free parameters, and their start values.

Semantic codes are a distribution (logits) over the codebook, levels are real numbers from 0 to
L - 1. The decoder reads the likeliest code and the nearest level. Gradients reach the distribution
through its soft mixture of code vectors, and straight through to the level.

Shapes: S samples, K codebooks, T frames, N frames of a voice, V semantic codes, C acoustic
channels, D latent width, F features, X spectra.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.audio.spectrum import mel_spectrogram
from voxclone.codec.model import Codec
from voxclone.codec.quantizer import USAGE_FLOOR, Quantizer, code_logits

NEAREST_BANDS, NEAREST_FFT = 80, 2048
LEAST_MAGNITUDE = 1e-3
NOTHING = "nothing"


@dataclass(frozen=True)
class Start:
    """A distribution of semantic codes [T, V] (log-probabilities) and levels [C, T]; `kind` is
    their origin: `encoder`, `codes`, or `nothing`."""

    log_TV: Tensor
    level_CT: Tensor
    kind: str

    def codes(self) -> Tensor:
        """The likeliest codes [K, T]."""
        return torch.cat([self.log_TV.argmax(dim=-1)[None], self.level_CT.round().long()])


@torch.no_grad()
def from_encoder(codec: Codec, wave_S: Tensor) -> Start:
    """The encoder's distribution for a recording. Raises ReleaseError if there is none."""
    latent_BDT = codec.latents(wave_S[None])
    semantic_BDT, acoustic_BDT = codec.quantizer.split(latent_BDT)
    logits_TV = code_logits(codec.quantizer.semantic_codebook, semantic_BDT)
    half = (codec.quantizer.levels - 1) / 2
    level_CT = half * torch.tanh(acoustic_BDT[0]) + half
    return Start(logits_TV.log_softmax(dim=-1), level_CT, "encoder")


@torch.no_grad()
def from_codes(codec: Codec, codes_KT: Tensor) -> Start:
    """Given codes; other codes are as likely as an encoder would find them by their vectors."""
    codebook = codec.quantizer.semantic_codebook
    logits_TV = code_logits(codebook, codebook.decode(codes_KT[None, 0]))
    return Start(logits_TV.log_softmax(dim=-1), codes_KT[1:].float(), "codes")


@torch.no_grad()
def from_nothing(codec: Codec, frames: int, seed: int) -> Start:
    """Semantic codes by the usage of the codebook, and levels near the middle, both with noise."""
    usage_V = codec.quantizer.semantic_codebook.cluster_usage.clamp(min=USAGE_FLOOR)
    generator = torch.Generator().manual_seed(seed)
    noise_TV = torch.randn((frames, len(usage_V)), generator=generator).to(usage_V.device)
    log_TV = ((usage_V / usage_V.sum()).log() + noise_TV).log_softmax(dim=-1)
    shape = (codec.config.acoustic_dim, frames)
    level_CT = (codec.quantizer.levels - 1) / 2 + torch.randn(shape, generator=generator)
    return Start(log_TV, level_CT.to(usage_V.device), NOTHING)


@torch.no_grad()
def nearest_frames(codec: Codec, wave_S: Tensor, voice_KN: Tensor) -> Tensor:
    """Codes [K, T] for a recording, taken from a voice: for each frame, those whose decoded sound
    has the nearest mel spectrum, after both means are removed."""
    own_TF = _spectra(codec, wave_S)
    other_NF = _spectra(codec, codec.decode(voice_KN[None])[0])
    own_TF, other_NF = (x - x.mean() for x in (own_TF, other_NF))
    distance_TN = torch.cdist(own_TF, other_NF, compute_mode="donot_use_mm_for_euclid_dist")
    return voice_KN[:, distance_TN.argmin(dim=-1)]


def _spectra(codec: Codec, wave_S: Tensor) -> Tensor:
    """Log mel magnitudes of each frame [T, F], four spectra a frame."""
    hop = codec.frame_size // 4
    mel_BFX = mel_spectrogram(wave_S[None], NEAREST_FFT, hop, NEAREST_BANDS)
    log_XF = mel_BFX[0].T.clamp(min=LEAST_MAGNITUDE).log()
    frames = len(wave_S) // codec.frame_size
    return log_XF[: 4 * frames].reshape(frames, -1)


class CodeParameters:
    """The parameters to optimize: semantic logits `delta` [T, V], added to `base` [T, V], and
    `level` [C, T]. Both are leaves of the graph."""

    def __init__(self, quantizer: Quantizer, start: Start) -> None:
        self.quantizer = quantizer
        self.start = start
        self.base_TV = start.log_TV.clone()
        self.state_TD: Tensor | None = None
        self.delta_TV = torch.zeros_like(start.log_TV).requires_grad_()
        self.level_CT = start.level_CT.clone().requires_grad_()
        self.vectors_VD = quantizer.semantic_codebook.vectors()

    def latent(self, temperature: float) -> Tensor:
        """The latent [D, T] for the decoder."""
        logits_TV = self.base_TV + self.delta_TV
        soft_TV = (logits_TV / temperature).softmax(dim=-1)
        hard_TD = self.vectors_VD[logits_TV.argmax(dim=-1)]
        mixed_TD = soft_TV @ self.vectors_VD
        semantic_DT = (mixed_TD + (hard_TD - mixed_TD).detach()).T
        return torch.cat([semantic_DT, self.values()])

    def values(self) -> Tensor:
        """Values [C, T] of the nearest levels, -1 to 1, gradients straight through."""
        top = self.quantizer.levels - 1
        rounded_CT = self.level_CT.clamp(0, top).round()
        snapped_CT = self.level_CT + (rounded_CT - self.level_CT).detach()
        return snapped_CT * 2 / top - 1

    def semantic_kl(self) -> Tensor:
        """Mean Kullback-Leibler divergence of the distribution from its base, in nats."""
        now_TV = (self.base_TV + self.delta_TV).log_softmax(dim=-1)
        before_TV = self.base_TV.log_softmax(dim=-1)
        return F.kl_div(before_TV, now_TV, reduction="batchmean", log_target=True)

    def level_distance(self) -> Tensor:
        """Mean squared distance of the levels from the start, in units of two levels."""
        return ((self.level_CT - self.start.level_CT) / 2).square().mean()

    @torch.no_grad()
    def codes(self) -> Tensor:
        """The present codes [K, T]."""
        semantic_1T = (self.base_TV + self.delta_TV).argmax(dim=-1)[None]
        level_CT = self.level_CT.clamp(0, self.quantizer.levels - 1).round().long()
        return torch.cat([semantic_1T, level_CT])
