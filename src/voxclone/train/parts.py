"""What is drawn for a part of a step: a function of seed, step and item, whoever does the part.

Shapes: B batch, K code books, T frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.data.pairs import draw_pairs, perturb
from voxclone.rng import step_generator
from voxclone.train.encoder_settings import EncoderTraining
from voxclone.train.ranks import Part

# Streams of random numbers of a step: what pairs there are, which real crops, which labelled ones,
# labels, clones; and further on one for each item of pairs, real crops and clones.
PAIRS, CROPS, TOLD, LABELS, CLONES = 0, 1, 2, 3, 4
OF_PAIRS, OF_CROPS, OF_CLONES = 10**6, 2 * 10**6, 3 * 10**6


@dataclass(frozen=True)
class Pairs:
    """A part's codes [B, K, T], which frames of them are real [B, T], and a generator for each.
    `share` is the number of these frames over that of a part on average: a mean over them, times
    this, has as its mean over parts the mean over the frames of the whole batch."""

    codes_BKT: Tensor
    mask_BT: Tensor
    sources: list[torch.Generator]
    share: float


def pairs_of(
    genuine: Sequence[Tensor], settings: EncoderTraining, top: int, step: int, part: Part
) -> Pairs:
    """A part of the pairs of a step, from `genuine` codes [K, T] with levels up to `top`."""
    generator = step_generator(settings.run.seed, step, PAIRS)
    codes_BKT, mask_BT = draw_pairs(genuine, settings.pair_batch, settings.frames, generator)
    codes_BKT = perturb(
        codes_BKT,
        generator,
        items=settings.perturb_share,
        levels=settings.perturb_levels,
        top=top,
    )
    own = part.of(settings.pair_batch)
    share = float(mask_BT[own].sum() * part.all_parts / mask_BT.sum())
    sources = sources_of(settings.run.seed, step, OF_PAIRS, own)
    return Pairs(codes_BKT[own], mask_BT[own], sources, share)


def sources_of(seed: int, step: int, first: int, part: slice) -> list[torch.Generator]:
    """A generator for each item of a part; `first` is the stream of item 0."""
    return [step_generator(seed, step, first + item) for item in range(part.start, part.stop)]
