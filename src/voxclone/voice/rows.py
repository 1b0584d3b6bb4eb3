"""Codes to voice rows and back.

A row is the sum of one table row from each code book, in the +2-shifted code space; after the
recording's frames comes one END frame, (1, 0, ..., 0) in that space (vLLM-Omni `encode_waveforms`).

Shapes: K code books, T frames, N = T + 1 rows, D width, V table rows, O options of a code book.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.spec import EMPTY_AUDIO, END_AUDIO, SHIFT

PASSES = 12
KEPT_SHARE = 0.7


def voice_rows(codes_KT: Tensor, table_VD: Tensor, offsets: Sequence[int]) -> Tensor:
    """Rows [T + 1, D] of codes [K, T], in the table's dtype: summed in fp32, rounded once."""
    end_K1 = torch.full((codes_KT.shape[0], 1), EMPTY_AUDIO, device=codes_KT.device)
    end_K1[0] = END_AUDIO
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
    rounds: int = 64,
    tries: int = 1024,
    seed: int = 0,
) -> Inversion:
    """Find the codes whose table rows sum to each row, exactly in the table's dtype.

    Coordinate descent over the code books from random codes; then, for the rows that it did not
    solve, from the best codes so far with three in ten drawn anew, `tries` in all in each of at
    most `rounds` rounds. In a wide table (3072) the first descent ends at the truth; in a narrow
    one with many code books it often stops beside it. `sizes` are the code books' sizes without
    the two special entries.
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
    for round_ in range(rounds):
        todo = (~exact_T).nonzero()[:, 0]
        if not len(todo):
            break
        copies = max(1, tries // len(todo)) if round_ else 1
        target_TD = frames_TD[todo].float().repeat_interleave(copies, dim=0)
        start_TK = torch.stack(
            [torch.randint(s, (len(target_TD),), generator=generator) for s in sizes], dim=1
        )
        if round_:
            kept_TK = torch.rand(start_TK.shape, generator=generator) < KEPT_SHARE
            start_TK = torch.where(kept_TK, best_TK[todo].repeat_interleave(copies, 0), start_TK)
        codes_TK = _descend(start_TK, target_TD, blocks, generator)
        distance_T = (_sum(codes_TK, blocks) - target_TD).square().sum(dim=-1)
        least_T, which_T = distance_T.view(len(todo), copies).min(dim=1)
        codes_TK = codes_TK[torch.arange(len(todo)) * copies + which_T]
        better = least_T < error_T[todo]
        best_TK[todo[better]] = codes_TK[better]
        error_T[todo[better]] = least_T[better]
        rounded_TD = _sum(codes_TK, blocks).to(table_VD.dtype)
        exact_T[todo] |= better & (rounded_TD == frames_TD[todo].to(table_VD.dtype)).all(dim=-1)
    return Inversion(best_TK.T.contiguous(), exact_T, has_end)


def _sum(codes_TK: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    return torch.stack([block[codes_TK[:, k]] for k, block in enumerate(blocks)]).sum(dim=0)


def _descend(
    codes_TK: Tensor,
    target_TD: Tensor,
    blocks: Sequence[Tensor],
    generator: torch.Generator,
) -> Tensor:
    """Choose each code anew given the others, in random order, until nothing changes."""
    codes_TK = codes_TK.clone()
    rest_TD = target_TD - _sum(codes_TK, blocks)
    for _ in range(PASSES):
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
