"""A critic of codes: are these the codes of the release, or an encoder's claim?

It looks at short runs of dequantised latents (a few frames), where it can judge which levels go
together but hardly who speaks or what is said.

Shapes: B batch, D latent width, T frames.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.codec.config import CodecConfig
from voxclone.train.ranks import Part
from voxclone.train.run import OptimiserSettings, apply_gradients


class CodeCritic(nn.Module):
    """Dequantised latents [B, D, T] -> one verdict for each frame [B, T]."""

    def __init__(self, config: CodecConfig, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(config.latent_dim, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv1d(width, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv1d(width, 1, 1),
        )

    def forward(self, latent_BDT: Tensor) -> Tensor:
        verdict_B1T: Tensor = self.layers(latent_BDT)
        return verdict_B1T[:, 0].float()


def critic_loss(
    genuine_BT: Tensor, claimed_BT: Tensor, mask_BT: Tensor, share: float = 1.0
) -> Tensor:
    """Hinge loss of the critic; frames of genuine codes outside the mask are padding.
    `share` is that of the genuine frames, see `parts.Pairs`."""
    genuine = (F.relu(1 - genuine_BT) * mask_BT).sum() / mask_BT.sum().clamp(min=1)
    return share * genuine + F.relu(1 + claimed_BT).mean()


def fooling_loss(claimed_BT: Tensor) -> Tensor:
    """What the encoder minimises."""
    return -claimed_BT.mean()


def criticise(
    critic: CodeCritic,
    optimiser: torch.optim.Optimizer,
    rates: OptimiserSettings,
    step: int,
    steps: int,
    part: Part,
    genuine_BDT: Tensor,
    claimed_BDT: Tensor,
    mask_BT: Tensor,
    share: float,
) -> Tensor:
    """One step of the critic (of a step in parts, with the last) on genuine codes, of which `mask`
    and `share` are as for `critic_loss`, against those that are claimed; then its opinion of the
    latter, with gradients into them."""
    critic.requires_grad_(True)
    verdicts = critic(genuine_BDT), critic(claimed_BDT.detach())
    loss = critic_loss(*verdicts, mask_BT, share)
    (loss / part.count).backward()
    if part.is_last:
        apply_gradients([optimiser], rates, step, steps)
    critic.requires_grad_(False)
    return fooling_loss(critic(claimed_BDT))
