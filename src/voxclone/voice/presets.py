"""Presets turned back into codes: the only true codes of real recordings that a release holds.

Shapes: K codebooks, T frames, N = T + 1 frames of an embedding, D width, V table rows, O codes of a
codebook.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.release.params import Params
from voxclone.release.release import Release, load_preset, load_table, preset_names
from voxclone.release.tensors import codebook_offsets, codebook_sizes
from voxclone.spec import SHIFT
from voxclone.voice.embedding import embed_codes

PASSES = 12
STARTS = 1024
KEPT_SHARE = 0.7


@dataclass(frozen=True)
class Inversion:
    """Codes [K, T] recovered from an embedding. `exact` [T] says whether the codes of a frame give
    it bit for bit, and `has_end` whether the last frame was the END frame, which is left out."""

    codes_KT: Tensor
    exact_T: Tensor
    has_end: bool


@dataclass(frozen=True)
class PresetCodes:
    """True codes [K, T] of each preset; `exact` is the share of frames that invert bit for bit."""

    codes: dict[str, Tensor]
    exact: dict[str, float]


def preset_codes(release: Release) -> PresetCodes:
    """Codes of every preset; the END frame is left out."""
    found = preset_inversions(release)
    return PresetCodes(
        {name: each.codes_KT for name, each in found.items()},
        {name: float(each.exact_T.float().mean()) for name, each in found.items()},
    )


def preset_inversions(release: Release, names: Iterable[str] | None = None) -> dict[str, Inversion]:
    """The presets `names` of a release, or all of them, turned back into codes."""
    named = preset_names(release) if names is None else names
    embeddings = {name: load_preset(release, name) for name in named}
    return invert_presets(embeddings, load_table(release), release.params)


def invert_presets(
    embeddings: Mapping[str, Tensor], table_VD: Tensor, params: Params
) -> dict[str, Inversion]:
    """Embeddings [N, D] of presets, turned back into codes by the table that they were made of, all
    together."""
    sizes, offsets = codebook_sizes(params), codebook_offsets(params)
    ended = {name: _without_end(each, table_VD, offsets) for name, each in embeddings.items()}
    frames = [frames_TD for frames_TD, _ in ended.values()]
    if not frames:
        return {}
    codes_TK, exact_T = _invert_frames(torch.cat(frames), table_VD, offsets, sizes)
    lengths = [len(frames_TD) for frames_TD in frames]
    parts = zip(codes_TK.split(lengths), exact_T.split(lengths), strict=True)
    return {
        name: Inversion(codes_TK.T.contiguous(), exact_T, has_end)
        for (name, (_, has_end)), (codes_TK, exact_T) in zip(ended.items(), parts, strict=True)
    }


def invert_embedding(
    embedding_ND: Tensor,
    table_VD: Tensor,
    offsets: Sequence[int],
    sizes: Sequence[int],
    *,
    rounds: int = 64,
) -> Inversion:
    """One embedding [N, D], turned back into codes. `sizes` are those of the codebooks without the
    two special codes."""
    frames_TD, has_end = _without_end(embedding_ND, table_VD, offsets)
    codes_TK, exact_T = _invert_frames(frames_TD, table_VD, offsets, sizes, rounds=rounds)
    return Inversion(codes_TK.T.contiguous(), exact_T, has_end)


def _without_end(
    embedding_ND: Tensor, table_VD: Tensor, offsets: Sequence[int]
) -> tuple[Tensor, bool]:
    """The frames [T, D] before the END frame, and whether there is one."""
    end_D = embed_codes(torch.zeros(len(offsets), 0, dtype=torch.long), table_VD, offsets)[0]
    has_end = bool(len(embedding_ND)) and torch.equal(embedding_ND[-1], end_D)
    return (embedding_ND[:-1] if has_end else embedding_ND), has_end


def _invert_frames(
    frames_TD: Tensor,
    table_VD: Tensor,
    offsets: Sequence[int],
    sizes: Sequence[int],
    *,
    rounds: int = 64,
) -> tuple[Tensor, Tensor]:
    """The codes [T, K] whose table rows sum to each frame, and whether they do so exactly in the
    table's dtype [T].

    Coordinate descent over the codebooks starts from random codes. Frames that it did not solve
    are tried again from their best codes with three in ten drawn again. A round has `STARTS` starts
    in all, and there are at most `rounds`. In a wide table (3072) the first descent ends at the
    true codes; in a narrow one with many codebooks it often stops beside them.
    """
    table = table_VD.float()
    books = [table[o + SHIFT : o + SHIFT + s] for o, s in zip(offsets, sizes, strict=True)]
    generator = torch.Generator().manual_seed(0)
    best_TK = torch.zeros(len(frames_TD), len(sizes), dtype=torch.long)
    error_T = torch.full((len(frames_TD),), torch.inf)
    exact_T = torch.zeros(len(frames_TD), dtype=torch.bool)
    for round_ in range(rounds):
        todo = (~exact_T).nonzero()[:, 0]
        if not len(todo):
            break
        copies = max(1, STARTS // len(todo)) if round_ else 1
        target_TD = frames_TD[todo].float().repeat_interleave(copies, dim=0)
        start_TK = torch.stack(
            [torch.randint(s, (len(target_TD),), generator=generator) for s in sizes], dim=1
        )
        if round_:
            kept_TK = torch.rand(start_TK.shape, generator=generator) < KEPT_SHARE
            start_TK = torch.where(kept_TK, best_TK[todo].repeat_interleave(copies, 0), start_TK)
        codes_TK = _descend(start_TK, target_TD, books, generator)
        distance_T = (_sum(codes_TK, books) - target_TD).square().sum(dim=-1)
        least_T, which_T = distance_T.view(len(todo), copies).min(dim=1)
        codes_TK = codes_TK[torch.arange(len(todo)) * copies + which_T]
        better = least_T < error_T[todo]
        best_TK[todo[better]] = codes_TK[better]
        error_T[todo[better]] = least_T[better]
        rounded_TD = _sum(codes_TK, books).to(table_VD.dtype)
        exact_T[todo] |= better & (rounded_TD == frames_TD[todo].to(table_VD.dtype)).all(dim=-1)
    return best_TK, exact_T


def _sum(codes_TK: Tensor, books: Sequence[Tensor]) -> Tensor:
    return torch.stack([book_OD[codes_TK[:, k]] for k, book_OD in enumerate(books)]).sum(dim=0)


def _descend(
    codes_TK: Tensor, target_TD: Tensor, books: Sequence[Tensor], generator: torch.Generator
) -> Tensor:
    """Choose each code again given the others, in random order, until nothing changes."""
    codes_TK = codes_TK.clone()
    rest_TD = target_TD - _sum(codes_TK, books)
    for _ in range(PASSES):
        before_TK = codes_TK.clone()
        order = torch.randperm(len(books) - 1, generator=generator) + 1
        for k in [0, *order.tolist()]:
            wanted_TD = rest_TD + books[k][codes_TK[:, k]]
            distance_TO = books[k].square().sum(dim=-1) - 2 * wanted_TD @ books[k].T
            codes_TK[:, k] = distance_TO.argmin(dim=-1)
            rest_TD = wanted_TD - books[k][codes_TK[:, k]]
        if torch.equal(before_TK, codes_TK):
            break
    return codes_TK
