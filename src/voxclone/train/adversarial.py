"""Multi-resolution STFT discriminators: hinge loss for them, feature matching for the codec.

As in arXiv 2603.25551, section 2.2, the codec receives only the L1 distance of the discriminators'
features (no adversarial term of its own). The paper gives eight STFT sizes and 256 channels but not
the layers; ours stride over frequency, four bins at a time, so that most work is done where the
maps are small. Both losses look at the later half of a crop, whose decoder has a past.

Shapes: B batch, S samples, C channels, F frequency bins, T frames.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations

from voxclone.audio.distance import PAPER_FFTS
from voxclone.train import distributed

LEARNING_RATE = 3e-4
"""Of the discriminators, as in most public codec trainings; it warms up and decays like the
encoder's."""

Features = list[list[Tensor]]
"""By discriminator, the features of every layer."""


class STFTDiscriminator(nn.Module):
    """Convolutions over the complex STFT at one size; returns the features of every layer, the last
    being the score (`verdict`)."""

    window_S: Tensor

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        widths = [2, channels, 2 * channels, 2 * channels]
        bins = n_fft // 2 + 1
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            stride = 4 if bins > 8 else 1
            bins = -(-bins // stride)
            conv = nn.Conv2d(before, after, (9, 3), stride=(stride, 1), padding=(4, 1))
            layers.append(parametrizations.weight_norm(conv))
        self.layers = nn.ModuleList(layers)
        self.verdict = parametrizations.weight_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))
        self.register_buffer("window_S", torch.hann_window(n_fft), persistent=False)

    def forward(self, wave_BS: Tensor) -> list[Tensor]:
        with torch.autocast(wave_BS.device.type, enabled=False):
            spectrum_BFT = torch.stft(
                wave_BS.float(),
                self.n_fft,
                self.n_fft // 4,
                window=self.window_S,
                normalized=True,
                return_complex=True,
            )
            # The root makes quiet harmonics visible; the sign of each part keeps the phase. Written
            # so that it does not jump at 0, where the parts that are but rounding lie.
            x_BCFT = torch.view_as_real(spectrum_BFT).permute(0, 3, 1, 2)
            x_BCFT = x_BCFT / (x_BCFT.abs() + 1e-4).sqrt()
        features = []
        for layer in self.layers:
            x_BCFT = F.leaky_relu(layer(x_BCFT), 0.2)
            features.append(x_BCFT)
        features.append(self.verdict(x_BCFT))
        return features


class MultiResolutionSTFTDiscriminator(nn.Module):
    """Discriminators at several STFT sizes."""

    def __init__(self, channels: int, stft_sizes: Sequence[int] = PAPER_FFTS) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            [STFTDiscriminator(n_fft, channels) for n_fft in stft_sizes]
        )

    def forward(self, wave_BS: Tensor) -> Features:
        return [discriminator(wave_BS) for discriminator in self.discriminators]


def discriminator_loss(
    discriminator: MultiResolutionSTFTDiscriminator, real_BS: Tensor, decoded_BS: Tensor
) -> Tensor:
    """What the discriminators minimize: `hinge_loss`, with gradients into them alone."""
    real_BS, decoded_BS = later_half(real_BS), later_half(decoded_BS)
    return hinge_loss(discriminator(real_BS), discriminator(decoded_BS.detach()))


def feature_matching_loss(
    discriminator: MultiResolutionSTFTDiscriminator, real_BS: Tensor, decoded_BS: Tensor
) -> Tensor:
    """What the codec minimizes: `feature_distance`, with gradients into `decoded` alone."""
    frozen = {name: p.detach() for name, p in discriminator.named_parameters()}
    with torch.no_grad():
        real = functional_call(discriminator, frozen, (later_half(real_BS),))
    return feature_distance(real, functional_call(discriminator, frozen, (later_half(decoded_BS),)))


def hinge_loss(real: Features, fake: Features) -> Tensor:
    """Scores shall be above 1 on real speech and below -1 on decoded."""
    terms = [
        F.relu(1 - r[-1].float()).mean() + F.relu(1 + f[-1].float()).mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def feature_distance(real: Features, fake: Features) -> Tensor:
    """L1 distance of features over the real ones' mean size, over layers and discriminators."""
    terms = []
    for r_layers, f_layers in zip(real, fake, strict=True):
        for r, f in zip(r_layers[:-1], f_layers[:-1], strict=True):
            size = distributed.mean(r.detach().float().abs().mean()).clamp(min=1e-4)
            terms.append((r.detach().float() - f.float()).abs().mean() / size)
    return torch.stack(terms).mean()


def later_half(wave_BS: Tensor) -> Tensor:
    """The samples [B, S / 2] from the middle on."""
    return wave_BS[:, wave_BS.shape[-1] // 2 :]
