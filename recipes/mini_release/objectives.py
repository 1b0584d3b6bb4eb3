"""Losses of the mini release's codec: of spectra, of frozen networks' states, and of its codes.

Shapes: B batch, S samples, M mel bands, F frequency bins, D semantic width, T codec frames,
R teacher states of a frame, L tokens, E width, N resolutions.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.audio.spectrum import magnitudes, mel_matrix
from voxclone.models.ctc_asr import Recognizer
from voxclone.models.speaker_network import SpeakerNetwork
from voxclone.spec import SAMPLING_RATE

RESOLUTIONS = ((2048, 160), (1024, 120), (512, 80), (256, 40), (128, 20))
"""STFT sizes and mel bands."""
MIN_MAGNITUDE = 1e-5


def spectral_losses(
    decoded_BS: Tensor, real_BS: Tensor, start_N: Tensor, *, floor: float
) -> dict[str, Tensor]:
    """`mel`: mean over resolutions of the L1 distance of log10 mel magnitudes. `stft`: mean over
    resolutions of spectral convergence plus the L1 distance of log magnitudes.

    The losses of `voxclone.audio.distance` take a hop of a quarter of the window. Here it is a
    half, and the windows of a resolution begin at the sample `start` (below the hop): drawn anew in
    every step, that is the same loss on average at half the cost. `floor` is added to magnitudes at
    size 2048, in proportion at others, so that the noise of pauses hardly counts.
    """
    mel, stft = decoded_BS.new_zeros(()), decoded_BS.new_zeros(())
    samples = torch.arange(real_BS.shape[1], device=real_BS.device)
    for number, (n_fft, bands) in enumerate(RESOLUTIONS):
        hop = n_fft // 2
        at_S = start_N[number] + samples[: len(samples) - hop]
        decoded_BFT, real_BFT = (
            magnitudes(x_BS.index_select(1, at_S), n_fft, hop) for x_BS in (decoded_BS, real_BS)
        )
        added = floor * n_fft / RESOLUTIONS[0][0]
        matrix_MF = mel_matrix(n_fft, bands, SAMPLING_RATE, real_BS.device)
        distance = _log_distance(matrix_MF @ decoded_BFT, matrix_MF @ real_BFT, added)
        mel = mel + distance / math.log(10)
        convergence = (real_BFT - decoded_BFT).norm() / real_BFT.norm().clamp(min=MIN_MAGNITUDE)
        stft = stft + convergence + _log_distance(decoded_BFT, real_BFT, added)
    return {"mel": mel / len(RESOLUTIONS), "stft": stft / len(RESOLUTIONS)}


def draw_starts(generator: torch.Generator) -> Tensor:
    """First samples [N] of the windows of `spectral_losses`."""
    draw = partial(torch.randint, size=(), generator=generator, device=generator.device)
    return torch.stack([draw(n_fft // 2) for n_fft, _ in RESOLUTIONS])


def _log_distance(decoded: Tensor, real: Tensor, added: float) -> Tensor:
    logs = [(x.clamp(min=MIN_MAGNITUDE) + added).log() for x in (decoded, real)]
    return (logs[0] - logs[1]).abs().mean()


class PerceptualLoss:
    """Distance of the states that frozen networks have of decoded speech and of the recording (a
    deep feature loss). Losses on spectra weigh what is loud; a network that tells sounds or
    speakers apart weighs what tells them apart. No metric is taken from these networks."""

    def __init__(self, recognizer: Recognizer, speaker_network: SpeakerNetwork) -> None:
        self.networks = (recognizer, speaker_network)
        for network in self.networks:
            network.eval().requires_grad_(False)

    def to(self, device: torch.device) -> "PerceptualLoss":
        for network in self.networks:
            network.to(device)
        return self

    def __call__(self, decoded_BS: Tensor, real_BS: Tensor) -> Tensor:
        """Mean over both networks and all their blocks of the L1 distance of states, over the mean
        size of the recording's."""
        terms = []
        for network in self.networks:
            trunk = network if isinstance(network, Recognizer) else network.trunk
            with torch.no_grad():
                real = _states(trunk, network.features(real_BS))
            decoded = _states(trunk, network.features(decoded_BS))
            terms += [
                (d.float() - r.float()).abs().mean() / r.float().abs().mean().clamp(min=1e-4)
                for d, r in zip(decoded, real, strict=True)
            ]
        return torch.stack(terms).mean()


def _states(trunk: Recognizer, features_BMT: Tensor) -> Sequence[Tensor]:
    """States [B, T, E] after the first convolutions and after every block."""
    x_BET = F.gelu(trunk.reduce(F.gelu(trunk.input(features_BMT))))
    states = [x_BET.transpose(1, 2)]
    for block in trunk.blocks:
        states.append(block(states[-1]))
    return states


def encoder_state_loss(projection: nn.Module, semantic_BDT: Tensor, target_BUE: Tensor) -> Tensor:
    """1 - cosine of the projected semantic stream and the teacher's encoder states (U = T * R),
    over those that there are: zeros stand for none."""
    projected_BTE = projection(semantic_BDT.transpose(1, 2))
    projected_BUE = projected_BTE.unflatten(-1, (-1, target_BUE.shape[-1])).flatten(1, 2)
    known_BU = (target_BUE.abs().sum(dim=-1) > 0).float()
    distance_BU = 1 - F.cosine_similarity(projected_BUE, target_BUE, dim=-1)
    return (distance_BU * known_BU).sum() / known_BU.sum().clamp(min=1)


def token_loss(
    projection: nn.Module, semantic_BDT: Tensor, token_BLE: Tensor, share_BLT: Tensor
) -> Tensor:
    """1 - cosine of each token's state and the projected semantic stream where it was spoken.
    Tokens count by the share of them that lies in the crop."""
    projected_BTE = projection(semantic_BDT.transpose(1, 2))
    weight_BL = share_BLT.sum(dim=-1)
    distance_BL = 1 - F.cosine_similarity(share_BLT @ projected_BTE, token_BLE, dim=-1)
    return (distance_BL * weight_BL).sum() / weight_BL.sum().clamp(min=1e-6)
