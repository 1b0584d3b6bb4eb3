"""The generation loop: from prompts to frames of codes, one prompt or a batch of them.

h (the last position of the prompt, [BEGIN_AUDIO]) -> 37 codes -> sum of their table rows -> next h,
until the semantic code END_AUDIO or the frame cap (vLLM-Omni's loop). Only the start noise of the
flow is random; each prompt has its own generator on the CPU, so a seed gives the same speech on any
device and in any batch.

Shapes: B batch, L prompt positions, D width, K code books, C acoustic channels, T frames.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.speech.acoustic import END_AUDIO, SHIFT, AcousticHead
from voxclone.speech.backbone import Backbone


@dataclass(frozen=True)
class Sampling:
    """How frames are drawn. `temperature` 0 is the arg-max of the runtimes."""

    cfg: float = 1.2
    temperature: float = 0.0


@dataclass(frozen=True)
class Frame:
    """One step: codes [B, K] in the +2-shifted space, and which prompts had not ended before."""

    shifted_BK: Tensor
    alive_B: Tensor


@dataclass(frozen=True)
class Generated:
    """Codes [K, T] of one prompt, without the shift and without the end frame; `truncated` if the
    cap came before the model's own end."""

    codes_KT: Tensor
    truncated: bool


@torch.inference_mode()
def frames(
    backbone: Backbone,
    head: AcousticHead,
    prompts_LD: Sequence[Tensor],
    generators: Sequence[torch.Generator],
    sampling: Sampling,
) -> Iterator[Frame]:
    """Yield frames without end; the caller stops. A prompt that has ended goes on being computed
    with the others of its batch, with `alive` false."""
    from transformers import DynamicCache

    device, dtype = prompts_LD[0].device, backbone.dtype
    embedded_BLD, mask_BL = _left_padded(prompts_LD)
    cache = DynamicCache()
    positions_BL = (mask_BL.cumsum(dim=1) - 1).clamp(min=0)
    padded = bool((~mask_BL).any())
    hidden_BLD = backbone(
        embedded_BLD,
        cache,
        attention_mask=mask_BL if padded else None,
        position_ids=positions_BL,
    )
    hidden_BD = hidden_BLD[:, -1]
    alive_B = torch.ones(len(prompts_LD), dtype=torch.bool, device=device)
    position_B1 = positions_BL[:, -1:]
    while True:
        noise_BC = torch.stack([torch.randn(head.channels, generator=g) for g in generators])
        semantic_B = _draw_semantic(head, hidden_BD, sampling.temperature, generators)
        shifted_BK = head(hidden_BD, noise_BC.to(device, dtype), sampling.cfg, semantic_B)
        yield Frame(shifted_BK, alive_B)
        alive_B = alive_B & (shifted_BK[:, 0] != END_AUDIO)
        if not bool(alive_B.any()):
            return
        position_B1 = position_B1 + 1
        mask_BL = torch.cat([mask_BL, torch.ones_like(mask_BL[:, :1])], dim=1)
        hidden_BLD = backbone(
            backbone.embed_codes(shifted_BK)[:, None],
            cache,
            attention_mask=mask_BL if padded else None,
            position_ids=position_B1,
        )
        hidden_BD = hidden_BLD[:, -1]


def generate(
    backbone: Backbone,
    head: AcousticHead,
    prompts_LD: Sequence[Tensor],
    seeds: Sequence[int],
    caps: Sequence[int],
    sampling: Sampling,
) -> list[Generated]:
    """Speak a batch of prompts to their ends or their caps (frames)."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    rows: list[Tensor] = []
    for frame in frames(backbone, head, prompts_LD, generators, sampling):
        rows.append(frame.shifted_BK)
        if len(rows) > max(caps):
            break
    codes_BKT = torch.stack(rows, dim=-1)
    results = []
    for codes_KT, cap in zip(codes_BKT, caps, strict=True):
        ends = (codes_KT[0] == END_AUDIO).nonzero()
        end = int(ends[0]) if len(ends) else codes_KT.shape[1]
        results.append(Generated((codes_KT[:, : min(end, cap)] - SHIFT).cpu(), end > cap))
    return results


def _draw_semantic(
    head: AcousticHead, hidden_BD: Tensor, temperature: float, generators: Sequence[torch.Generator]
) -> Tensor | None:
    if temperature == 0:
        return None
    probability_BV = (head.mask_semantic(head.semantic_logits(hidden_BD)) / temperature).softmax(-1)
    drawn = [
        torch.multinomial(row.cpu(), 1, generator=generator)
        for row, generator in zip(probability_BV, generators, strict=True)
    ]
    return torch.cat(drawn).to(hidden_BD.device)


def _left_padded(prompts_LD: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Prompts of any lengths as one batch [B, L, D] that ends together, and where it is real."""
    longest = max(len(prompt) for prompt in prompts_LD)
    device = prompts_LD[0].device
    padded, mask = [], torch.zeros(len(prompts_LD), longest, dtype=torch.bool, device=device)
    for row, prompt_LD in enumerate(prompts_LD):
        gap = longest - len(prompt_LD)
        padded.append(torch.nn.functional.pad(prompt_LD, (0, 0, gap, 0)))
        mask[row, gap:] = True
    return torch.stack(padded), mask
