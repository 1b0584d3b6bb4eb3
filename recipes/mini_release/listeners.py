"""Frozen listeners: decoded speech shall sound to them like the recording.

Losses on spectra weigh what is loud. A network that was trained to tell sounds or speakers apart
weighs what tells them apart, so the distance of its states is asked to be small, layer by layer
(a "perceptual" or deep feature loss). Two listeners are used: the recogniser that teaches the
semantic stream, and a small network that tells the training speakers apart. Neither is among the
judges that figures are taken from.

Shapes: B batch, S samples, M mel bands, T frames at 50 Hz, D width, P speakers, L layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.models.ctc_asr import Recognizer
from voxclone.models.speaker_network import SpeakerNetwork

SCALE = 20.0


def freeze(*networks: nn.Module) -> None:
    """Without dropout, and without gradients of their own."""
    for network in networks:
        network.eval().requires_grad_(False)


@dataclass(frozen=True)
class Listeners:
    """Frozen networks that compare decoded speech with the recording."""

    recogniser: Recognizer
    voices: SpeakerNetwork

    @classmethod
    def frozen(cls, recogniser: Recognizer, voices: SpeakerNetwork) -> "Listeners":
        """Both without dropout and without gradients of their own."""
        freeze(recogniser, voices)
        return cls(recogniser, voices)

    def distance(self, estimate_BS: Tensor, target_BS: Tensor) -> Tensor:
        """Mean over both listeners and all their blocks of the L1 distance of states, over the mean
        size of the recording's."""
        terms = []
        for network in (self.recogniser, self.voices):
            trunk = network if isinstance(network, Recognizer) else network.trunk
            with torch.no_grad():
                wanted = _states(trunk, network.features(target_BS))
            made = _states(trunk, network.features(estimate_BS))
            terms += [
                (m.float() - w.float()).abs().mean() / w.float().abs().mean().clamp(min=1e-4)
                for m, w in zip(made, wanted, strict=True)
            ]
        return torch.stack(terms).mean()


def _states(trunk: Recognizer, features_BMT: Tensor) -> Sequence[Tensor]:
    """States [B, T, D] after the first convolutions and after every block."""
    x_BDT = F.gelu(trunk.reduce(F.gelu(trunk.input(features_BMT))))
    states = [x_BDT.transpose(1, 2)]
    for block in trunk.blocks:
        states.append(block(states[-1]))
    return states
