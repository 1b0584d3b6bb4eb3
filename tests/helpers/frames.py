"""Frames one after another, to look at each.

Shapes: B batch, L prompt positions, D width, K codebooks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.spec import END_AUDIO
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone
from voxclone.tts.batch import Batch, Sampling


@dataclass(frozen=True)
class Frame:
    """One step: codes [B, K] in the +2-shifted space; `alive` [B] if a prompt had not ended before
    it."""

    shifted_BK: Tensor
    alive_B: Tensor


@torch.inference_mode()
def frames(
    backbone: Backbone,
    head: AcousticHead,
    prompts_LD: Sequence[Tensor],
    generators: Sequence[torch.Generator],
    sampling: Sampling,
) -> Iterator[Frame]:
    """Yield frames until all prompts have ended, or the caller stops. A prompt that has ended stays
    in the batch, with `alive` false."""
    batch = Batch(backbone, head)
    batch.admit(prompts_LD, generators, [sampling] * len(prompts_LD))
    alive_B = torch.ones(len(prompts_LD), dtype=torch.bool, device=prompts_LD[0].device)
    while True:
        shifted_BK = batch.draw()
        yield Frame(shifted_BK, alive_B)
        alive_B = alive_B & (shifted_BK[:, 0] != END_AUDIO)
        if not bool(alive_B.any()):
            return
        batch.advance(shifted_BK)
