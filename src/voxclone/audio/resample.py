"""From 24 kHz to 16 kHz, the rate of speech networks, with gradients.

Shapes: B batch, S samples.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.spec import SAMPLING_RATE

MODEL_RATE = 16000  # of PESQ, speaker encoders and ASR models
_HALF_TAPS = 102  # resampling: pass band to 7.3 kHz, stop band from 8.0 kHz at -80 dB
_CUTOFF_HZ = 7650.0
_KAISER_BETA = 8.0


def to_16k(wave_BS: Tensor) -> Tensor:
    """Resample [B, S] from 24 kHz to [B, ceil(2 S / 3)] at 16 kHz; gradients pass.

    A Kaiser-windowed sinc as two polyphase filters (output 2k lies at input 3k, output 2k + 1 at
    3k + 1.5), zeros beyond the edges, no delay.
    """
    samples = wave_BS.shape[-1]
    out = -(-samples * 2 // 3)
    steps = -(-out // 2)
    right = max(0, 3 * (steps - 1) + _HALF_TAPS + 2 - samples)
    padded_BS = F.pad(wave_BS, (_HALF_TAPS, right))
    kernels = _resampling_kernels().to(wave_BS)
    two_B2T: Tensor = F.conv1d(padded_BS[:, None], kernels[:, None], stride=3)[..., :steps]
    return two_B2T.transpose(1, 2).flatten(1)[:, :out]


@functools.cache
def _resampling_kernels() -> Tensor:
    """The two filters [2, taps]; tap i weighs the input at 3k + i - _HALF_TAPS."""
    taps = torch.arange(-_HALF_TAPS, _HALF_TAPS + 2, dtype=torch.float64)
    offsets = taps[None] - torch.tensor([[0.0], [1.5]], dtype=torch.float64)
    inside = (1 - (offsets / (_HALF_TAPS + 0.5)).square()).clamp(min=0)
    window = torch.special.i0(_KAISER_BETA * inside.sqrt()) * (inside > 0)
    kernels: Tensor = torch.sinc(2 * _CUTOFF_HZ / SAMPLING_RATE * offsets) * window
    return (kernels / kernels.sum(dim=1, keepdim=True)).float()
