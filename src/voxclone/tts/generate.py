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

import torch
from torch import Tensor

from voxclone.device import few_threads
from voxclone.release.tensors import parameter_count
from voxclone.spec import END_AUDIO, SHIFT
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone
from voxclone.tts.batch import Sampling
from voxclone.tts.static_batch import make_batch

REFILL_SHARE = 8
"""Slots of a batch are filled again when an eighth of them is free: several prompts together are
cheaper to read, and a free slot costs nothing."""


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
    order in which they end. Requests are taken from the iterable as slots become free. The model
    computes by as many threads as it is worth."""
    waiting, size = enumerate(requests), parameter_count(backbone.params)
    batch = make_batch(backbone, head)
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
                with few_threads(size):
                    batch.admit(prompts, generators, samplings)
                running += new
                drawn += [[] for _ in new]
        if not running:
            return
        with few_threads(size):
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
            with few_threads(size):
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
