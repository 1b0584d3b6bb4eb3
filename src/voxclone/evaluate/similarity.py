"""Speaker similarity of synthesized speech.

Shapes: S samples, D width of an embedding, N speakers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.audio.loudness import normalize_loudness
from voxclone.errors import MissingExtraError
from voxclone.evaluate.progress import Track, untracked
from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.evaluate.synthesis import Synthesis
from voxclone.models.speaker_encoder import SpeakerEmbedder


@dataclass(frozen=True)
class Similarity:
    """Mean cosine to the reference of the same speaker, to those of other speakers, and their
    difference; the last two are None where there is one speaker."""

    same_speaker: Interval
    cross_speaker: Interval | None
    difference: Interval | None


def similarity_by_embedder(
    syntheses: Sequence[Synthesis],
    references: Mapping[str, Tensor],
    embedders: Sequence[SpeakerEmbedder],
    missing: dict[str, str],
    track: Track = untracked,
) -> dict[str, Similarity]:
    """Similarity of syntheses to `references`, the recordings [S] by speaker. An embedder whose
    package is not installed is left out, and the reason is added to `missing`."""
    found = {}
    for embedder in embedders:
        try:
            embeddings = {
                speaker: embedder.embed(normalize_loudness(wave_S))
                for speaker, wave_S in track(list(references.items()), embedder.name)
            }
            found[embedder.name] = speaker_similarities(syntheses, embeddings, embedder)
        except MissingExtraError as error:
            missing[embedder.name] = str(error)
    return found


def speaker_similarities(
    syntheses: Sequence[Synthesis], embeddings: Mapping[str, Tensor], embedder: SpeakerEmbedder
) -> Similarity:
    """Compare syntheses with the reference embeddings [D] by speaker. Silence counts as 0."""
    index = {name: i for i, name in enumerate(embeddings)}
    references_ND = torch.stack(list(embeddings.values()))
    same, cross = [], []
    for each in syntheses:
        cosine_N = torch.zeros(len(index))
        if len(each.wave_S):
            cosine_N = references_ND @ embedder.embed(normalize_loudness(each.wave_S))
        own = float(cosine_N[index[each.speaker]])
        same.append(own)
        cross.append((float(cosine_N.sum()) - own) / max(1, len(index) - 1))
    speakers = [each.speaker for each in syntheses]
    if len(index) < 2:
        return Similarity(bootstrap(same, speakers), None, None)
    difference = [a - b for a, b in zip(same, cross, strict=True)]
    return Similarity(
        bootstrap(same, speakers), bootstrap(cross, speakers), bootstrap(difference, speakers)
    )
