"""Speaker similarity of what was said: to the own reference, and to those of the others.

Shapes: S samples, D width of an embedding, N speakers.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from voxclone.audio.loudness import normalize_loudness
from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.evaluate.synthesis import Said
from voxclone.models.speaker_encoder import SpeakerEmbedder


def likenesses(
    said: Sequence[Said], references: Mapping[str, Tensor], embedder: SpeakerEmbedder
) -> tuple[list[float], list[float]]:
    """Of each thing said the cosine to its speaker's reference, and the mean of those to the
    others' (0 where there are none). `references` are embeddings [D] by speaker. What does not
    sound counts as 0."""
    order = {name: place for place, name in enumerate(references)}
    references_ND = torch.stack(list(references.values()))
    matched, shuffled = [], []
    for each in said:
        own_likeness = other_likeness = 0.0
        if len(each.wave_S):
            alike_N = references_ND @ embedder.embed(normalize_loudness(each.wave_S))
            own_likeness = float(alike_N[order[each.speaker]])
            others = max(1, len(alike_N) - 1)
            other_likeness = (float(alike_N.sum()) - own_likeness) / others
        matched.append(own_likeness)
        shuffled.append(other_likeness)
    return matched, shuffled


def likeness_of(
    said: Sequence[Said], references: Mapping[str, Tensor], embedder: SpeakerEmbedder
) -> dict[str, Interval]:
    """Means over speakers of `likenesses` (`matched`, `shuffled`) and of their difference
    (`gain`); the last two are left out where there is only one speaker."""
    matched, shuffled = likenesses(said, references, embedder)
    names = [each.speaker for each in said]
    found = {"matched": bootstrap(matched, names)}
    if len(references) > 1:
        gain = [a - b for a, b in zip(matched, shuffled, strict=True)]
        found |= {"shuffled": bootstrap(shuffled, names), "gain": bootstrap(gain, names)}
    return found
