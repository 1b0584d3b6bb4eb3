"""The loss of the acoustic head's flow.

Shapes: N frames, D width, K code books, C acoustic channels.
"""

import torch
from torch import Tensor

from voxclone.codec.quantizer import to_values
from voxclone.spec import END_AUDIO, SHIFT
from voxclone.tts.acoustic import AcousticHead


def flow_loss(
    head: AcousticHead,
    hidden_ND: Tensor,
    target_NK: Tensor,
    generator: torch.Generator,
    *,
    draws: int = 1,
    dropped: float | None = None,
) -> Tensor:
    """Mean squared error of the levels (-1 to 1) that the velocity x1 - x0 at a random time points
    to, (1 - t)^2 times that of the velocity, over `draws` of all frames but ends. Every time has
    the same best velocity either way; but at late times x0 cannot be known, and the velocity's own
    error is then noise that outweighs what is learned of voices.

    In training, `dropped` is the share of frames without their hidden state (for guidance), and
    levels are spread over the intervals that they stand for, so that the flow learns no comb; in
    validation it is None.
    """
    speaks_N = target_NK[:, 0] != END_AUDIO
    hidden_ND = hidden_ND[speaks_N].repeat(draws, 1)
    level_NC = (target_NK[speaks_N, 1:] - SHIFT).repeat(draws, 1)
    data_NC = to_values(level_NC, head.levels)
    device = hidden_ND.device
    noise_NC = torch.randn(data_NC.shape, generator=generator).to(device)
    time_N1 = torch.rand(len(data_NC), 1, generator=generator).to(device)
    if dropped is not None:
        drop_N1 = torch.rand(len(data_NC), 1, generator=generator) < dropped
        hidden_ND = hidden_ND.masked_fill(drop_N1.to(device), 0.0)
        jitter_NC = torch.rand(data_NC.shape, generator=generator).to(device) - 0.5
        data_NC = data_NC + jitter_NC * 2 / (head.levels - 1)
    error_NC = head.error(data_NC, noise_NC, time_N1[:, 0], head.llm_projection(hidden_ND))
    return ((1 - time_N1) * error_NC).square().mean()
