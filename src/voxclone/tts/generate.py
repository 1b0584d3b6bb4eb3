"""The generation loop: from prompts to frames of codes, one prompt or a batch of them.

h (the last position of the prompt, [BEGIN_AUDIO]) -> 37 codes -> sum of their table rows -> next h,
until the semantic code END_AUDIO or the frame cap (vLLM-Omni's loop). Only the start noise of the
flow is random. Each prompt has its own generator on the CPU, so a seed gives the same speech on any
device and in any batch. In `generate_many`, a prompt that has ended leaves the batch, and another
one takes its slot.

Shapes: B batch, L prompt positions, M positions in the cache, D width, K codebooks, C acoustic
channels, T frames.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.spec import END_AUDIO, SHIFT
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone
from voxclone.tts.limits import check_cfg

REFILL_SHARE = 8
"""Slots of a batch are filled again when an eighth of them is free: several prompts together are
cheaper to read, and a free slot costs nothing."""


@dataclass(frozen=True)
class Sampling:
    """How frames are drawn. `temperature` 0 is the arg-max of the runtimes."""

    cfg: float = 1.2
    temperature: float = 0.0

    def __post_init__(self) -> None:
        """Raises UsageError for a guidance that the model cannot be given."""
        check_cfg(self.cfg)


@dataclass(frozen=True)
class Generated:
    """Codes [K, T] of one prompt, without the shift and without the end frame; `truncated` if the
    cap came before the model's own end."""

    codes_KT: Tensor
    truncated: bool


@dataclass(frozen=True)
class Request:
    """A prompt [L, D] to speak with a seed, up to `cap` frames."""

    prompt_LD: Tensor
    seed: int
    cap: int
    sampling: Sampling


@torch.inference_mode()
def generate_many(
    backbone: Backbone, head: AcousticHead, requests: Iterable[Request], batch_size: int
) -> Iterator[tuple[int, Generated]]:
    """Speak requests, up to `batch_size` at a time. Yields the number of each and its codes, in the
    order in which they end. Requests are taken from the iterable as slots become free."""
    waiting = enumerate(requests)
    batch = Batch(backbone, head)
    running: list[tuple[int, Request]] = []
    drawn: list[list[Tensor]] = []
    more = True
    while True:
        free = batch_size - len(running)
        if more and free and (not running or free * REFILL_SHARE >= batch_size):
            new = list(islice(waiting, free))
            more = len(new) == free
            if new:
                generators = [torch.Generator().manual_seed(each.seed) for _, each in new]
                prompts, samplings = zip(*((e.prompt_LD, e.sampling) for _, e in new), strict=True)
                batch.admit(prompts, generators, samplings)
                running += new
                drawn += [[] for _ in new]
        if not running:
            return
        shifted_BK = batch.draw()
        ended = (shifted_BK[:, 0] == END_AUDIO).tolist()
        kept = []
        for slot, (number, request) in enumerate(running):
            frames_K = drawn[slot]
            if ended[slot] or len(frames_K) == request.cap:  # the end may come right after the cap
                frames_TK = torch.stack(frames_K) - SHIFT if frames_K else shifted_BK[:0]
                yield number, Generated(frames_TK.T.cpu(), truncated=not ended[slot])
            else:
                frames_K.append(shifted_BK[slot])
                kept.append(slot)
        if len(kept) < len(running):
            running, drawn = [running[slot] for slot in kept], [drawn[slot] for slot in kept]
            batch.keep(kept)
            shifted_BK = shifted_BK[kept]
        if running:
            batch.advance(shifted_BK)


def generate(
    backbone: Backbone,
    head: AcousticHead,
    prompts_LD: Sequence[Tensor],
    seeds: Sequence[int],
    caps: Sequence[int],
    sampling: Sampling,
) -> list[Generated]:
    """Speak a batch of prompts to their ends or their caps (frames)."""
    requests = [
        Request(prompt_LD, seed, cap, sampling)
        for prompt_LD, seed, cap in zip(prompts_LD, seeds, caps, strict=True)
    ]
    found = dict(generate_many(backbone, head, requests, len(requests)))
    return [found[number] for number in range(len(requests))]


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
        noise_BC = torch.stack([torch.randn(head.channels, generator=g) for g in self.generators])
        guidance = {sampling.cfg for sampling in self.samplings}
        cfg: float | Tensor = guidance.pop()
        if guidance:
            cfg = torch.tensor([[each.cfg] for each in self.samplings], device=hidden_BD.device)
        noise_BC = noise_BC.to(hidden_BD.device, self.backbone.dtype)
        return head(hidden_BD, noise_BC, cfg, self._draw_semantic())

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

    def _draw_semantic(self) -> Tensor | None:
        """Codes [B], drawn where the temperature is above 0; None where it is 0 everywhere."""
        if all(sampling.temperature == 0 for sampling in self.samplings):
            return None
        logits_BV = self.head.mask_semantic(self.head.semantic_logits(self.hidden_BD)).cpu()
        drawn = []
        for logits_V, sampling, generator in zip(
            logits_BV, self.samplings, self.generators, strict=True
        ):
            if sampling.temperature == 0:
                drawn.append(logits_V.argmax(dim=-1, keepdim=True))
                continue
            probability_V = (logits_V / sampling.temperature).softmax(dim=-1)
            drawn.append(torch.multinomial(probability_V, 1, generator=generator))
        return torch.cat(drawn).to(self.hidden_BD.device)


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
