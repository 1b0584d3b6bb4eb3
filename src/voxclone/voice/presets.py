"""Presets as codes: the only true codes of real recordings that a release holds.

Shapes: K code books, T frames.
"""

from dataclasses import dataclass

from torch import Tensor

from voxclone.release.archive import Release, load_preset, load_table, preset_names
from voxclone.release.tensors import codebook_offsets
from voxclone.voice.rows import invert_rows


@dataclass(frozen=True)
class PresetCodes:
    """True codes [K, T] of each preset; `exact` is the share of frames that invert bit for bit."""

    codes: dict[str, Tensor]
    exact: dict[str, float]


def preset_codes(release: Release) -> PresetCodes:
    """Invert every preset of a release to codes; the END row is left out."""
    table_VD = load_table(release)
    params = release.params
    sizes = [params.audio.semantic_codebook_size]
    sizes += [params.audio.acoustic_codebook_size] * params.audio.n_acoustic_codebook
    codes, exact = {}, {}
    for name in preset_names(release):
        rows_ND = load_preset(release, name)
        found = invert_rows(rows_ND, table_VD, codebook_offsets(params), sizes)
        codes[name] = found.codes_KT
        exact[name] = float(found.exact_T.float().mean())
    return PresetCodes(codes, exact)
