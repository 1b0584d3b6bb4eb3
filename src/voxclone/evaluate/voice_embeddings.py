"""Voice embeddings of an encoder, against those of the presets.

Shapes: N frames of a voice, D width, M voices, E principal directions, K codebooks, T frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from voxclone.voice.embedding import embed_codes
from voxclone.voice.presets import Inversion

DIRECTIONS = 32
SAMPLE = 600
MIN_VARIANCE = 1e-12


@dataclass(frozen=True)
class VoicePoint:
    """The mean embedding of a voice on the first two principal directions of the presets."""

    name: str
    preset: bool
    x: float
    y: float


@dataclass(frozen=True)
class EmbeddingComparison:
    """Embeddings of enrolled voices and of presets. Norms are means over frames. Cosines are of the
    voices' mean embeddings, `cosines` [M][M] of all `names`. `outside` is the share of the squared
    distance from the presets' mean that lies outside their principal directions;
    `outside_presets` is that of each preset by the directions of the others."""

    norm: float
    preset_norm: float
    cosine_among_presets: float
    cosine_to_nearest_preset: float
    cosine_among_enrolled: float | None
    outside: float
    outside_presets: float
    names: list[str]
    cosines: list[list[float]]
    map: list[VoicePoint]


@dataclass(frozen=True)
class InversionStats:
    """Presets inverted to codes: share of frames whose codes give the embedding bit for bit
    (`exact`), and of those the share that a neighboring level gives as well (`ambiguous`).
    `no_end` names presets without the END embedding."""

    frames: int
    exact: float
    ambiguous: float
    no_end: list[str]


def compare_embeddings(
    presets: Mapping[str, Tensor], enrolled: Mapping[str, Tensor]
) -> EmbeddingComparison:
    """Compare embeddings [N, D] of voices by name, without their END embeddings."""
    preset_voices = [voice_ND.double().numpy() for voice_ND in presets.values()]
    enrolled_voices = [voice_ND.double().numpy() for voice_ND in enrolled.values()]
    all_ND = np.concatenate(preset_voices)
    center_D = all_ND.mean(axis=0)
    directions_ED = _principal_directions(all_ND - center_D)
    means_MD = np.stack([voice_ND.mean(axis=0) for voice_ND in preset_voices + enrolled_voices])
    unit_MD = means_MD / np.linalg.norm(means_MD, axis=1, keepdims=True)
    cosine_MM = unit_MD @ unit_MD.T
    count = len(preset_voices)
    points_M2 = (means_MD - center_D) @ directions_ED[:2].T
    names = [*presets, *enrolled]
    return EmbeddingComparison(
        norm=_mean_norm(enrolled_voices),
        preset_norm=_mean_norm(preset_voices),
        cosine_among_presets=_off_diagonal(cosine_MM[:count, :count]) or 1.0,
        cosine_to_nearest_preset=float(cosine_MM[count:, :count].max(axis=1).mean()),
        cosine_among_enrolled=_off_diagonal(cosine_MM[count:, count:]),
        outside=_outside(np.concatenate(enrolled_voices) - center_D, directions_ED),
        outside_presets=float(np.mean([_left_out(preset_voices, i) for i in range(count)])),
        names=names,
        cosines=cosine_MM.round(4).tolist(),
        map=[
            VoicePoint(name, i < count, float(x), float(y))
            for i, (name, (x, y)) in enumerate(zip(names, points_M2, strict=True))
        ],
    )


def inversion_stats(
    inversions: Mapping[str, Inversion],
    presets: Mapping[str, Tensor],
    table_VD: Tensor,
    offsets: Sequence[int],
    levels: int,
) -> InversionStats:
    """Compare inverted codes with the presets' embeddings [N, D] that they came from."""
    frames = sum(len(found.exact_T) for found in inversions.values())
    exact = sum(int(found.exact_T.sum()) for found in inversions.values())
    ambiguous = sum(
        _ambiguous(found, presets[name], table_VD, offsets, levels)
        for name, found in inversions.items()
    )
    return InversionStats(
        frames=frames,
        exact=exact / max(1, frames),
        ambiguous=ambiguous / max(1, exact),
        no_end=[name for name, found in inversions.items() if not found.has_end],
    )


def _ambiguous(
    found: Inversion, voice_ND: Tensor, table_VD: Tensor, offsets: Sequence[int], levels: int
) -> int:
    """Exact frames whose embedding is the same with a neighboring level in one channel."""
    same_T = torch.zeros(len(found.exact_T), dtype=torch.bool)
    wanted_TD = voice_ND[: len(same_T)]
    for channel in range(1, found.codes_KT.shape[0]):
        for step in (-1, 1):
            other_KT = found.codes_KT.clone()
            other_KT[channel] = (other_KT[channel] + step).clamp(0, levels - 1)
            changed_T = other_KT[channel] != found.codes_KT[channel]
            other_TD = embed_codes(other_KT, table_VD, offsets)[:-1]
            same_T |= changed_T & (other_TD == wanted_TD).all(dim=-1)
    return int((same_T & found.exact_T).sum())


def _principal_directions(away_ND: np.ndarray) -> np.ndarray:
    """First principal directions [E, D], from an even sample of frames: the full decomposition of
    3,000 frames of width 3,072 takes ten seconds, and each preset needs one."""
    sample_ND = away_ND[:: -(-len(away_ND) // SAMPLE)]
    values, vectors_NE = np.linalg.eigh(sample_ND @ sample_ND.T)
    kept = [i for i in np.argsort(values)[::-1][:DIRECTIONS] if values[i] > 1e-9 * values.max()]
    directions_ED = vectors_NE[:, kept].T @ sample_ND
    unit_ED: np.ndarray = directions_ED / np.linalg.norm(directions_ED, axis=1, keepdims=True)
    return unit_ED


def _left_out(voices: Sequence[np.ndarray], index: int) -> float:
    """How much of one voice lies outside the principal directions of the others."""
    others_ND = np.concatenate([*voices[:index], *voices[index + 1 :]])
    center_D = others_ND.mean(axis=0)
    return _outside(voices[index] - center_D, _principal_directions(others_ND - center_D))


def _outside(away_ND: np.ndarray, directions_ED: np.ndarray) -> float:
    total = float((away_ND**2).sum())
    inside = float(((away_ND @ directions_ED.T) ** 2).sum())
    return max(0.0, 1 - inside / max(total, MIN_VARIANCE))


def _mean_norm(voices: Sequence[np.ndarray]) -> float:
    return float(np.mean(np.concatenate([np.linalg.norm(each, axis=1) for each in voices])))


def _off_diagonal(cosine_MM: np.ndarray) -> float | None:
    count = len(cosine_MM)
    if count < 2:
        return None
    return float((cosine_MM.sum() - np.trace(cosine_MM)) / (count * (count - 1)))
