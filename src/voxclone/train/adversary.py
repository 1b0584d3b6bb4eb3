"""STFT discriminators: hinge loss for them, feature matching for the codec.

As in arXiv 2603.25551, section 2.2, the codec receives only the L1 distance of the discriminators'
features (no adversarial term of its own). The paper gives eight STFT sizes and 256 channels but not
the layers; ours stride over frequency, four bins at a time, so that most work is done where the
maps are small.

Shapes: B batch, S samples, C channels, F frequency bins, T frames.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from voxclone.config import Settings
from voxclone.train import ranks
from voxclone.train.ranks import WHOLE, Part
from voxclone.train.run import OptimiserSettings, apply_gradients


class AdversarySettings(Settings):
    """Sizes of the discriminators; the paper's are `losses.PAPER_FFTS` and 256 channels."""

    n_ffts: tuple[int, ...] = (1418, 542, 206, 76)
    channels: int = 16


class StftDiscriminator(nn.Module):
    """Convolutions over the complex STFT at one size; returns the features of every layer, the last
    being the verdict."""

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


class Adversary(nn.Module):
    """Discriminators at several STFT sizes."""

    def __init__(self, settings: AdversarySettings) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            [StftDiscriminator(n_fft, settings.channels) for n_fft in settings.n_ffts]
        )

    def forward(self, wave_BS: Tensor) -> list[list[Tensor]]:
        return [discriminator(wave_BS) for discriminator in self.discriminators]


def hinge_loss(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """What the discriminators minimise: verdicts above 1 on real speech, below -1 on decoded."""
    terms = [
        F.relu(1 - r[-1].float()).mean() + F.relu(1 + f[-1].float()).mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def feature_loss(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """L1 distance of features over the real ones' mean size, over layers and discriminators."""
    terms = []
    for r_layers, f_layers in zip(real, fake, strict=True):
        for r, f in zip(r_layers[:-1], f_layers[:-1], strict=True):
            size = ranks.mean(r.detach().float().abs().mean()).clamp(min=1e-4)
            terms.append((r.detach().float() - f.float()).abs().mean() / size)
    return torch.stack(terms).mean()


def judge(
    adversary: Adversary,
    optimiser: torch.optim.Optimizer,
    rates: OptimiserSettings,
    step: int,
    steps: int,
    real_BS: Tensor,
    made_BS: Tensor,
    part: Part = WHOLE,
) -> Tensor:
    """One step of the discriminators, which are frozen outside of it. Returns their loss. Of a step
    in parts, they step with the last."""
    adversary.requires_grad_(True)
    hinge = hinge_loss(adversary(real_BS), adversary(made_BS.detach()))
    (hinge / part.count).backward()
    if part.is_last:
        apply_gradients([optimiser], rates, step, steps)
    adversary.requires_grad_(False)
    return hinge.detach()


def contest(
    adversary: Adversary,
    optimiser: torch.optim.Optimizer,
    rates: OptimiserSettings,
    step: int,
    steps: int,
    real_BS: Tensor,
    made_BS: Tensor,
    part: Part = WHOLE,
) -> tuple[Tensor, Tensor]:
    """A step of the discriminators and then `match`, on the later half of both, whose decoder has
    a past: their loss, and that of what was decoded."""
    half = real_BS.shape[-1] // 2
    real_BS, made_BS = real_BS[:, half:], made_BS[:, half:]
    hinge = judge(adversary, optimiser, rates, step, steps, real_BS, made_BS, part)
    return hinge, match(adversary, real_BS, made_BS)


def match(adversary: Adversary, real_BS: Tensor, made_BS: Tensor) -> Tensor:
    """`feature_loss` of decoded speech against real speech, with gradients into the former."""
    with torch.no_grad():
        real = adversary(real_BS)
    return feature_loss(real, adversary(made_BS))
