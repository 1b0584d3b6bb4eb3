"""Voice rows of an encoder against the rows of the presets.

Shapes: N rows, D width, M voices, E principal directions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from voxclone.voice.embedding import embed_codes
from voxclone.voice.presets import Inversion

DIRECTIONS = 32
ROWS = 600
LEAST_SPREAD = 1e-12


@dataclass(frozen=True)
class VoicePoint:
    """A voice: its mean row on the first two principal directions of the presets' rows."""

    name: str
    preset: bool
    x: float
    y: float


@dataclass(frozen=True)
class RowHealth:
    """Rows of enrolled voices and of presets. Norms are means over rows; cosines are between mean
    rows of voices: among presets, and of each enrolled voice to its nearest preset. `outside` is
    the share of a row's squared distance from the presets' mean that lies outside their first
    principal directions, and `outside_presets` that of presets judged by the others."""

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
class InversionHealth:
    """Presets turned back to codes. `exact` is the share of frames whose codes give the row bit for
    bit; `ambiguous` of those the share for which a neighbouring level gives the same row; `no_end`
    names presets without the END row."""

    frames: int
    exact: float
    ambiguous: float
    no_end: list[str]


def row_health(presets: Mapping[str, Tensor], enrolled: Mapping[str, Tensor]) -> RowHealth:
    """Compare rows [N, D] (END rows left out) of enrolled voices with those of presets."""
    preset_rows = [rows.double().numpy() for rows in presets.values()]
    enrolled_rows = [rows.double().numpy() for rows in enrolled.values()]
    every_ND = np.concatenate(preset_rows)
    centre_D = every_ND.mean(axis=0)
    directions_ED = _principal(every_ND - centre_D)
    means_MD = np.stack([rows.mean(axis=0) for rows in preset_rows + enrolled_rows])
    unit_MD = means_MD / np.linalg.norm(means_MD, axis=1, keepdims=True)
    cosine_MM = unit_MD @ unit_MD.T
    count = len(preset_rows)
    points_M2 = (means_MD - centre_D) @ directions_ED[:2].T
    names = [*presets, *enrolled]
    left_out = []
    for index, rows_ND in enumerate(preset_rows):
        others_ND = np.concatenate(preset_rows[:index] + preset_rows[index + 1 :])
        middle_D = others_ND.mean(axis=0)
        left_out.append(_outside(rows_ND - middle_D, _principal(others_ND - middle_D)))
    return RowHealth(
        norm=_mean_norm(enrolled_rows),
        preset_norm=_mean_norm(preset_rows),
        cosine_among_presets=_off_diagonal(cosine_MM[:count, :count]) or 1.0,
        cosine_to_nearest_preset=float(cosine_MM[count:, :count].max(axis=1).mean()),
        cosine_among_enrolled=_off_diagonal(cosine_MM[count:, count:]),
        outside=_outside(np.concatenate(enrolled_rows) - centre_D, directions_ED),
        outside_presets=float(np.mean(left_out)),
        names=names,
        cosines=cosine_MM.round(4).tolist(),
        map=[
            VoicePoint(name, place < count, float(x), float(y))
            for place, (name, (x, y)) in enumerate(zip(names, points_M2, strict=True))
        ],
    )


def inversion_health(
    inversions: Mapping[str, Inversion],
    rows: Mapping[str, Tensor],
    table_VD: Tensor,
    offsets: Sequence[int],
    levels: int,
) -> InversionHealth:
    """Check what the presets' rows [N, D] were inverted to."""
    frames = sum(len(found.exact_T) for found in inversions.values())
    exact = ambiguous = 0
    for name, found in inversions.items():
        exact += int(found.exact_T.sum())
        ambiguous += _ambiguous(found, rows[name], table_VD, offsets, levels)
    return InversionHealth(
        frames=frames,
        exact=exact / max(1, frames),
        ambiguous=ambiguous / max(1, exact),
        no_end=[name for name, found in inversions.items() if not found.has_end],
    )


def _ambiguous(
    found: Inversion, rows_ND: Tensor, table_VD: Tensor, offsets: Sequence[int], levels: int
) -> int:
    """Frames whose row some other level of one channel gives as well."""
    same_T = torch.zeros(len(found.exact_T), dtype=torch.bool)
    wanted_TD = rows_ND[: len(same_T)]
    for channel in range(1, found.codes_KT.shape[0]):
        for step in (-1, 1):
            other_KT = found.codes_KT.clone()
            other_KT[channel] = (other_KT[channel] + step).clamp(0, levels - 1)
            moved_T = other_KT[channel] != found.codes_KT[channel]
            made_TD = embed_codes(other_KT, table_VD, offsets)[:-1]
            same_T |= moved_T & (made_TD == wanted_TD).all(dim=-1)
    return int((same_T & found.exact_T).sum())


def _principal(away_ND: np.ndarray) -> np.ndarray:
    """First principal directions [E, D], from rows taken evenly: a full decomposition of three
    thousand rows of three thousand numbers takes ten seconds, and one is needed for each preset."""
    chosen_ND = away_ND[:: -(-len(away_ND) // ROWS)]
    values, vectors_NE = np.linalg.eigh(chosen_ND @ chosen_ND.T)
    kept = [i for i in np.argsort(values)[::-1][:DIRECTIONS] if values[i] > 1e-9 * values.max()]
    directions_ED = vectors_NE[:, kept].T @ chosen_ND
    unit_ED: np.ndarray = directions_ED / np.linalg.norm(directions_ED, axis=1, keepdims=True)
    return unit_ED


def _outside(away_ND: np.ndarray, directions_ED: np.ndarray) -> float:
    total = float((away_ND**2).sum())
    inside = float(((away_ND @ directions_ED.T) ** 2).sum())
    return max(0.0, 1 - inside / max(total, LEAST_SPREAD))


def _mean_norm(rows: Sequence[np.ndarray]) -> float:
    return float(np.mean(np.concatenate([np.linalg.norm(each, axis=1) for each in rows])))


def _off_diagonal(cosine_MM: np.ndarray) -> float | None:
    count = len(cosine_MM)
    if count < 2:
        return None
    return float((cosine_MM.sum() - np.trace(cosine_MM)) / (count * (count - 1)))
