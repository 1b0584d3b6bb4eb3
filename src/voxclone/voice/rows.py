"""Codes to voice rows and back.

A row is the sum of one table row from each code book, in the +2-shifted code space; after the
recording's frames comes one END frame, (1, 0, ..., 0) in that space (vLLM-Omni `encode_waveforms`).

Shapes: K code books, T frames, N = T + 1 rows, D width, V table rows, O options of a code book.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SHIFT = 2
END_SEMANTIC = 1
END_ACOUSTIC = 0


def voice_rows(codes_KT: Tensor, table_VD: Tensor, offsets: Sequence[int]) -> Tensor:
    """Rows [T + 1, D] of codes [K, T], in the table's dtype: summed in fp32, rounded once."""
    end_K1 = torch.full((codes_KT.shape[0], 1), END_ACOUSTIC, device=codes_KT.device)
    end_K1[0] = END_SEMANTIC
    shifted_KN = torch.cat([codes_KT.long() + SHIFT, end_K1], dim=1)
    places_KN = shifted_KN + torch.tensor(offsets, device=codes_KT.device)[:, None]
    return table_VD[places_KN].float().sum(dim=0).to(table_VD.dtype)


@dataclass(frozen=True)
class Inversion:
    """Codes [K, T] recovered from rows; `exact` tells for each frame whether the codes give the
    row bit for bit, and `has_end` whether the last row was the END row (which is left out)."""

    codes_KT: Tensor
    exact_T: Tensor
    has_end: bool


def invert_rows(
    rows_ND: Tensor,
    table_VD: Tensor,
    offsets: Sequence[int],
    sizes: Sequence[int],
    *,
    passes: int = 12,
    restarts: int = 64,
    seed: int = 0,
) -> Inversion:
    """Find the codes whose table rows sum to each row: coordinate descent over the code books from
    several starts, kept when the sum is exact in the table's dtype.

    `sizes` are the code books' sizes without the two special entries.
    """
    end_D = voice_rows(torch.zeros(len(sizes), 0, dtype=torch.long), table_VD, offsets)[0]
    has_end = bool(len(rows_ND)) and torch.equal(rows_ND[-1], end_D)
    frames_TD = rows_ND[:-1] if has_end else rows_ND
    table = table_VD.float()
    blocks = [table[o + SHIFT : o + SHIFT + s] for o, s in zip(offsets, sizes, strict=True)]
    generator = torch.Generator().manual_seed(seed)
    best_TK = torch.zeros(len(frames_TD), len(sizes), dtype=torch.long)
    error_T = torch.full((len(frames_TD),), torch.inf)
    exact_T = torch.zeros(len(frames_TD), dtype=torch.bool)
    for _ in range(restarts):
        todo = (~exact_T).nonzero()[:, 0]
        if not len(todo):
            break
        target_TD = frames_TD[todo].float()
        codes_TK = torch.stack(
            [torch.randint(s, (len(todo),), generator=generator) for s in sizes], dim=1
        )
        codes_TK = _descend(codes_TK, target_TD, blocks, passes, generator)
        sum_TD = _sum(codes_TK, blocks)
        distance_T = (sum_TD - target_TD).square().sum(dim=-1)
        better = distance_T < error_T[todo]
        best_TK[todo[better]] = codes_TK[better]
        error_T[todo[better]] = distance_T[better]
        rounded_TD = sum_TD.to(table_VD.dtype)
        exact_T[todo] |= better & (rounded_TD == frames_TD[todo].to(table_VD.dtype)).all(dim=-1)
    return Inversion(best_TK.T.contiguous(), exact_T, has_end)


def _sum(codes_TK: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    return torch.stack([block[codes_TK[:, k]] for k, block in enumerate(blocks)]).sum(dim=0)


def _descend(
    codes_TK: Tensor,
    target_TD: Tensor,
    blocks: Sequence[Tensor],
    passes: int,
    generator: torch.Generator,
) -> Tensor:
    """Choose each code anew given the others, in random order, until nothing changes."""
    codes_TK = codes_TK.clone()
    rest_TD = target_TD - _sum(codes_TK, blocks)
    for _ in range(passes):
        before_TK = codes_TK.clone()
        order = torch.randperm(len(blocks) - 1, generator=generator) + 1
        for k in [0, *order.tolist()]:
            wanted_TD = rest_TD + blocks[k][codes_TK[:, k]]
            distance_TO = blocks[k].square().sum(dim=-1) - 2 * wanted_TD @ blocks[k].T
            codes_TK[:, k] = distance_TO.argmin(dim=-1)
            rest_TD = wanted_TD - blocks[k][codes_TK[:, k]]
        if torch.equal(before_TK, codes_TK):
            break
    return codes_TK
