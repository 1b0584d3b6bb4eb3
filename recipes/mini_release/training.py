"""What the trainings of the mini release have in common beside `voxclone.train.loop`.

Shapes: B batch, S samples.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from recipes.mini_release.listeners import Listeners
from voxclone.config import Settings
from voxclone.train import loop, losses, optim
from voxclone.train.adversarial import (
    MultiResolutionSTFTDiscriminator,
    discriminator_loss,
    feature_matching_loss,
)
from voxclone.train.checkpoint import TrainState

MEL_SCALES = ((2048, 160), (1024, 120), (512, 80), (256, 40), (128, 20))


class RunSettings(loop.RunSettings):
    device: str = "auto"


class OptimiserSettings(optim.OptimizerSettings):
    """`clip` is the largest norm of the gradients."""

    clip: float = 1.0


class AdversarySettings(Settings):
    """Sizes of the discriminators; the paper's are `distance.PAPER_FFTS` and 256 channels."""

    n_ffts: tuple[int, ...] = (1418, 542, 206, 76)
    channels: int = 16


class Adversary(MultiResolutionSTFTDiscriminator):
    """Discriminators at several STFT sizes."""

    def __init__(self, settings: AdversarySettings) -> None:
        super().__init__(settings.channels, settings.n_ffts)


def learners(state: TrainState) -> list[Optimizer]:
    """The optimisers of what is trained, without those of judges."""
    return [state.optimizers[name] for name in ("adamw", "muon") if name in state.optimizers]


def apply_gradients(
    optimisers: Sequence[Optimizer], settings: OptimiserSettings, step: int, steps: int
) -> Tensor:
    """Clip, set the rate, step and clear. Returns the norm before clipping; one that is not finite
    skips the step."""
    norm = nn.utils.clip_grad_norm_(optim.parameters_of(optimisers), settings.clip)
    if torch.isfinite(norm):
        rate = optim.learning_rate(settings.lr, step, steps, settings.warmup_steps)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    return norm


def contest(
    adversary: Adversary,
    optimiser: Optimizer,
    rates: OptimiserSettings,
    step: int,
    steps: int,
    real_BS: Tensor,
    made_BS: Tensor,
) -> tuple[Tensor, Tensor]:
    """A step of the discriminators, and then feature matching: their loss, and that of what was
    decoded."""
    hinge = discriminator_loss(adversary, real_BS, made_BS)
    hinge.backward()
    apply_gradients([optimiser], rates, step, steps)
    return hinge.detach(), feature_matching_loss(adversary, real_BS, made_BS)


def waveform_losses(
    made_BS: Tensor,
    wave_BS: Tensor,
    weights: Mapping[str, float],
    *,
    floor: float = 0.0,
    n_ffts: Sequence[int] = losses.STFT_SIZES,
    listeners: Listeners | None = None,
) -> dict[str, Tensor]:
    """`train.losses.waveform_losses`, and `heard` where it has a weight."""
    found = losses.waveform_losses(
        made_BS, wave_BS, weights, floor=floor, stft_sizes=n_ffts, mel_scales=MEL_SCALES
    )
    if weights.get("heard"):
        if listeners is None:
            raise ValueError("the loss `heard` needs listeners")
        found["heard"] = listeners.distance(made_BS, wave_BS)
    return found
