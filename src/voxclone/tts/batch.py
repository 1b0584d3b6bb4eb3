"""Prompts in progress: the cache of the language model, and the hidden state that gives the next
frame of each.

Each prompt has its own generator on the CPU, so a seed gives the same speech on any device and in
any batch.

Shapes: B batch, L prompt positions, M positions in the cache, D width, K codebooks, C acoustic
channels, V semantic outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone
from voxclone.tts.limits import check_cfg


@dataclass(frozen=True)
class Sampling:
    """How frames are drawn. `temperature` 0 is the arg-max of the runtimes."""

    cfg: float = 1.2
    temperature: float = 0.0

    def __post_init__(self) -> None:
        """Raises UsageError for a guidance that the model cannot be given."""
        check_cfg(self.cfg)


class Batch:
    """The prompts in progress: the cache of each, padded on the left so that all end together, and
    the hidden state that gives its next frame."""

    def __init__(self, backbone: Backbone, head: AcousticHead) -> None:
        self.backbone, self.head = backbone, head
        self.cache: Any = None
        self.generators: list[torch.Generator] = []
        self.samplings: list[Sampling] = []

    def admit(
        self,
        prompts_LD: Sequence[Tensor],
        generators: Sequence[torch.Generator],
        samplings: Sequence[Sampling],
    ) -> None:
        """Read new prompts and append them to the batch."""
        from transformers import DynamicCache

        embedded_BLD, mask_BM = _left_padded(prompts_LD)
        positions_BM = (mask_BM.cumsum(dim=1) - 1).clamp(min=0)
        cache = DynamicCache()
        hidden_BLD = self.backbone(
            embedded_BLD, cache, attention_mask=_needed(mask_BM), position_ids=positions_BM
        )
        hidden_BD, position_B1 = hidden_BLD[:, -1], positions_BM[:, -1:]
        if not self.generators:
            self.cache, self.mask_BM = cache, mask_BM
            self.hidden_BD, self.position_B1 = hidden_BD, position_B1
        else:
            self._join(cache, mask_BM.shape[1])
            width = max(self.mask_BM.shape[1], mask_BM.shape[1])
            masks = [F.pad(m, (width - m.shape[1], 0)) for m in (self.mask_BM, mask_BM)]
            self.mask_BM = torch.cat(masks)
            self.hidden_BD = torch.cat([self.hidden_BD, hidden_BD])
            self.position_B1 = torch.cat([self.position_B1, position_B1])
        self.generators += generators
        self.samplings += samplings

    def keep(self, slots: Sequence[int]) -> None:
        """Keep these slots only, and drop positions that none of them needs."""
        self.generators = [self.generators[slot] for slot in slots]
        self.samplings = [self.samplings[slot] for slot in slots]
        if not slots:
            return
        at_B = torch.tensor(slots, device=self.hidden_BD.device)
        self.mask_BM = self.mask_BM[at_B]
        first = int(self.mask_BM.any(dim=0).int().argmax())
        self.mask_BM = self.mask_BM[:, first:]
        self.hidden_BD, self.position_B1 = self.hidden_BD[at_B], self.position_B1[at_B]
        for layer in self.cache.layers:
            layer.keys = layer.keys[at_B, :, first:]
            layer.values = layer.values[at_B, :, first:]

    def draw(self) -> Tensor:
        """The next frame [B, K] of each, in the +2-shifted space."""
        head, hidden_BD = self.head, self.hidden_BD
        noise_BC = draw_noise(self.generators, head.channels)
        guidance = {sampling.cfg for sampling in self.samplings}
        cfg: float | Tensor = guidance.pop()
        if guidance:
            cfg = torch.tensor([[each.cfg] for each in self.samplings], device=hidden_BD.device)
        noise_BC = noise_BC.to(hidden_BD.device, self.backbone.dtype)
        semantic_B = draw_semantic(head, hidden_BD, self.samplings, self.generators)
        return head(hidden_BD, noise_BC, cfg, semantic_B)

    def advance(self, shifted_BK: Tensor) -> None:
        """Let the language model read the frames that were drawn."""
        self.position_B1 = self.position_B1 + 1
        self.mask_BM = F.pad(self.mask_BM, (0, 1), value=True)
        hidden_B1D = self.backbone(
            self.backbone.embed_codes(shifted_BK)[:, None],
            self.cache,
            attention_mask=_needed(self.mask_BM),
            position_ids=self.position_B1,
        )
        self.hidden_BD = hidden_B1D[:, -1]

    def _join(self, cache: Any, width: int) -> None:
        """Append another cache; the shorter of the two is padded on the left."""
        here = self.mask_BM.shape[1]
        gaps = (max(width - here, 0), max(here - width, 0))
        for mine, theirs in zip(self.cache.layers, cache.layers, strict=True):
            for name in ("keys", "values"):
                pair = zip((getattr(mine, name), getattr(theirs, name)), gaps, strict=True)
                setattr(mine, name, torch.cat([F.pad(x, (0, 0, gap, 0)) for x, gap in pair]))


def draw_noise(generators: Sequence[torch.Generator], channels: int) -> Tensor:
    """Start noise [B, C] of the flow on the CPU, a row from each generator."""
    return torch.stack([torch.randn(channels, generator=each) for each in generators])


def draw_semantic(
    head: AcousticHead,
    hidden_BD: Tensor,
    samplings: Sequence[Sampling],
    generators: Sequence[torch.Generator],
) -> Tensor | None:
    """Codes [B], drawn where the temperature is above 0; None where it is 0 everywhere."""
    if all(sampling.temperature == 0 for sampling in samplings):
        return None
    drawn = []
    logits_BV = head.mask_semantic(head.semantic_logits(hidden_BD)).cpu()
    for logits_V, sampling, generator in zip(logits_BV, samplings, generators, strict=True):
        if sampling.temperature == 0:
            drawn.append(logits_V.argmax(dim=-1, keepdim=True))
            continue
        probability_V = (logits_V / sampling.temperature).softmax(dim=-1)
        drawn.append(torch.multinomial(probability_V, 1, generator=generator))
    return torch.cat(drawn).to(hidden_BD.device)


def _needed(mask_BM: Tensor) -> Tensor | None:
    """The mask, or None where it hides nothing."""
    return None if bool(mask_BM.all()) else mask_BM


def _left_padded(prompts_LD: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Prompts of any lengths as one batch [B, L, D] that ends together, and the mask [B, L] of what
    is no padding."""
    longest = max(len(prompt) for prompt in prompts_LD)
    device = prompts_LD[0].device
    padded, mask = [], torch.zeros(len(prompts_LD), longest, dtype=torch.bool, device=device)
    for slot, prompt_LD in enumerate(prompts_LD):
        gap = longest - len(prompt_LD)
        padded.append(F.pad(prompt_LD, (0, 0, gap, 0)))
        mask[slot, gap:] = True
    return torch.stack(padded), mask
