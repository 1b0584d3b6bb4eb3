"""Triples as the sequences that a language model reads, and what is done to them in training.

Shapes: B batch, L positions, D width, K code books, N frames of a batch, T frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.release.params import Params
from voxclone.spec import EMPTY_AUDIO, END_AUDIO, SHIFT
from voxclone.tts.backbone import Backbone
from voxclone.tts.prompt import PromptMaker

PROMPT_EXTRA = 6  # the END row of the voice, and five special tokens


@dataclass(frozen=True)
class Example:
    """One triple: voice codes [T, K], text ids, target codes [T, K] and, for every target frame,
    the place in the text ids of what is being said (-1 where unknown)."""

    voice_TK: Tensor
    text_ids: list[int]
    target_TK: Tensor
    places_T: Tensor


@dataclass(frozen=True)
class Batch:
    """Sequences padded on the right. The rows of N are the positions whose hidden state predicts a
    frame: (item, place); `target_NK` are those frames shifted, the end frame included; `guide_N` is
    the position of the character being spoken, or -1."""

    ids_BL: Tensor
    codes_BLK: Tensor
    is_code_BL: Tensor
    item_N: Tensor
    place_N: Tensor
    target_NK: Tensor
    guide_N: Tensor


def length_of(example: Example) -> int:
    """Positions of an example's sequence."""
    return len(example.voice_TK) + len(example.text_ids) + len(example.target_TK) + PROMPT_EXTRA


def sequences(
    examples: Sequence[Example], prompts: PromptMaker, params: Params, device: torch.device
) -> Batch:
    """The runtime's prompt of each example, and its target behind it."""
    longest = max(length_of(example) for example in examples)
    count, books = len(examples), examples[0].target_TK.shape[1]
    ids_BL = torch.zeros(count, longest, dtype=torch.long)
    codes_BLK = torch.zeros(count, longest, books, dtype=torch.long)
    is_code_BL = torch.zeros(count, longest, dtype=torch.bool)
    items, places, targets, guides = [], [], [], []
    end_1K = torch.full((1, books), EMPTY_AUDIO)
    end_1K[0, 0] = END_AUDIO
    for row, example in enumerate(examples):
        voice_NK = torch.cat([example.voice_TK + SHIFT, end_1K])
        head = [params.bos_token_id, params.audio.begin_audio_token_id]
        tail = prompts.around_text(example.text_ids)
        begin = len(head)
        ids_BL[row, :begin] = torch.tensor(head)
        codes_BLK[row, begin : begin + len(voice_NK)] = voice_NK
        is_code_BL[row, begin : begin + len(voice_NK)] = True
        text_at = begin + len(voice_NK) + 1
        ids_BL[row, text_at - 1 : text_at - 1 + len(tail)] = torch.tensor(tail)
        last = text_at - 1 + len(tail) - 1  # [BEGIN_AUDIO]: its state predicts frame 0
        frames = len(example.target_TK)
        codes_BLK[row, last + 1 : last + 1 + frames] = example.target_TK + SHIFT
        is_code_BL[row, last + 1 : last + 1 + frames] = True
        items.append(torch.full((frames + 1,), row))
        places.append(torch.arange(last, last + frames + 1))
        targets.append(torch.cat([example.target_TK + SHIFT, end_1K]))
        known_T = example.places_T >= 0
        guide_T = torch.where(known_T, example.places_T + text_at, -1)
        guides.append(torch.cat([guide_T, torch.full((1,), -1)]))
    tensors = (
        ids_BL,
        codes_BLK,
        is_code_BL,
        *(torch.cat(x) for x in (items, places, targets, guides)),
    )
    return Batch(*(tensor.to(device) for tensor in tensors))


def embed(backbone: Backbone, batch: Batch, codes_BLK: Tensor) -> Tensor:
    """What the model reads [B, L, D]: the text of a batch, and codes (its own, or changed)."""
    return torch.where(
        batch.is_code_BL[..., None],
        backbone.embed_codes(codes_BLK),
        backbone.text_table(batch.ids_BL),
    )


def misread(
    codes_BLK: Tensor,
    generator: torch.Generator,
    *,
    params: Params,
    levels: float,
    semantic: float,
) -> Tensor:
    """A share `levels` of the levels moved by one, a share `semantic` of the semantic codes
    replaced; special codes stay."""
    audio, device = params.audio, codes_BLK.device
    draw_BLK = torch.rand(codes_BLK.shape, generator=generator).to(device)
    sign_BLK = (torch.rand(codes_BLK.shape, generator=generator) < 0.5).to(device) * 2 - 1
    moved_BLK = (codes_BLK + sign_BLK).clamp(SHIFT, SHIFT + audio.acoustic_codebook_size - 1)
    shape, size = codes_BLK[..., 0].shape, audio.semantic_codebook_size
    other_BL = torch.randint(size, shape, generator=generator).to(device) + SHIFT
    moved_BLK[..., 0] = other_BL
    share_K = torch.full((codes_BLK.shape[-1],), levels, device=device)
    share_K[0] = semantic
    ordinary_BL1 = codes_BLK[..., :1] >= SHIFT
    return torch.where((draw_BLK < share_K) & ordinary_BL1, moved_BLK, codes_BLK)


def forget(batch: Batch, codes_BLK: Tensor, generator: torch.Generator, *, share: float) -> Tensor:
    """In a `share` of the items, take the levels of some frames that are already said (a share of
    them drawn anew), as if they were empty."""
    count, length = batch.ids_BL.shape
    chosen_B1 = torch.rand(count, 1, generator=generator) < share
    share_B1 = torch.rand(count, 1, generator=generator) * chosen_B1
    gone_BL = (torch.rand(count, length, generator=generator) < share_B1).to(codes_BLK.device)
    said_BL = torch.zeros_like(gone_BL)
    said_BL[batch.item_N, batch.place_N] = True
    gone_BLK = (gone_BL & said_BL & batch.is_code_BL)[..., None].repeat(1, 1, codes_BLK.shape[-1])
    gone_BLK[..., 0] = False
    return codes_BLK.masked_fill(gone_BLK, EMPTY_AUDIO)
