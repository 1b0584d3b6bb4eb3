"""Presets as codes: the only true codes of real recordings that a release holds.

Shapes: K code books, T frames, N rows, D width, V table rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from voxclone.release.params import Params
from voxclone.release.release import Release, load_preset, load_table, preset_names
from voxclone.release.tensors import codebook_offsets
from voxclone.voice.rows import Inversion, invert_rows


@dataclass(frozen=True)
class PresetCodes:
    """True codes [K, T] of each preset; `exact` is the share of frames that invert bit for bit."""

    codes: dict[str, Tensor]
    exact: dict[str, float]


def preset_inversions(release: Release, names: Iterable[str] | None = None) -> dict[str, Inversion]:
    """Presets of a release (all of them if no `names` are given), turned back to codes."""
    named = preset_names(release) if names is None else names
    rows = {name: load_preset(release, name) for name in named}
    return invert_presets(rows, load_table(release), release.params)


def invert_presets(
    rows: Mapping[str, Tensor], table_VD: Tensor, params: Params
) -> dict[str, Inversion]:
    """The rows [N, D] of presets, turned back to codes by the table that they were made of."""
    sizes = [params.audio.semantic_codebook_size]
    sizes += [params.audio.acoustic_codebook_size] * params.audio.n_acoustic_codebook
    offsets = codebook_offsets(params)
    return {name: invert_rows(rows_ND, table_VD, offsets, sizes) for name, rows_ND in rows.items()}


def preset_codes(release: Release) -> PresetCodes:
    """Codes of every preset; the END row is left out."""
    found = preset_inversions(release)
    return PresetCodes(
        {name: each.codes_KT for name, each in found.items()},
        {name: float(each.exact_T.float().mean()) for name, each in found.items()},
    )
