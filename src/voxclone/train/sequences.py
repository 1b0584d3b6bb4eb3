"""Speech as a language model reads it: batches of prompts and codes.

An example is a triple of one speaker: a voice, a text, and the codes that say it (arXiv 2603.25551,
3.1). What the model itself would have generated before a frame can take the place of the true codes
(scheduled sampling in two passes, arXiv 1906.07651).

Shapes: B batch, L positions, D width, K codebooks, N frames of a batch, T frames, C acoustic
channels, I items, S samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.codec.quantizer import to_levels, to_values
from voxclone.release.params import Params
from voxclone.spec import EMPTY_AUDIO, END_AUDIO, SHIFT
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone
from voxclone.tts.prompt import PromptMaker

PROMPT_EXTRA = 6  # the END row of the voice, and five special tokens


@dataclass(frozen=True)
class Example:
    """One triple: voice codes [T, K], text ids, target codes [T, K] and, for every target frame,
    the index in the text ids of the token that is being spoken (-1 where unknown)."""

    voice_TK: Tensor
    text_ids: list[int]
    target_TK: Tensor
    text_index_T: Tensor


@dataclass(frozen=True)
class Batch:
    """Sequences padded on the right. N are the positions whose hidden state predicts a frame, by
    item and position; `target_NK` are those frames shifted, the end frame included; `guide_N` is
    the position of the character that is being spoken, or -1."""

    ids_BL: Tensor
    codes_BLK: Tensor
    is_code_BL: Tensor
    item_N: Tensor
    position_N: Tensor
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
    items, positions, targets, guides = [], [], [], []
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
        positions.append(torch.arange(last, last + frames + 1))
        targets.append(torch.cat([example.target_TK + SHIFT, end_1K]))
        known_T = example.text_index_T >= 0
        guide_T = torch.where(known_T, example.text_index_T + text_at, -1)
        guides.append(torch.cat([guide_T, torch.full((1,), -1)]))
    tensors = (
        ids_BL,
        codes_BLK,
        is_code_BL,
        *(torch.cat(x) for x in (items, positions, targets, guides)),
    )
    return Batch(*(tensor.to(device) for tensor in tensors))


def embed(backbone: Backbone, batch: Batch, codes_BLK: Tensor) -> Tensor:
    """What the model reads [B, L, D]: the text of a batch, and codes (its own, or changed)."""
    return torch.where(
        batch.is_code_BL[..., None],
        backbone.embed_codes(codes_BLK),
        backbone.text_table(batch.ids_BL),
    )


def decode_values(codec: Codec, semantic_IT: Tensor, value_ICT: Tensor) -> Tensor:
    """Speech [I, S] of semantic codes and acoustic values (-1 to 1), with gradients."""
    vectors_IDT = codec.quantizer.semantic_codebook.decode(semantic_IT)
    wave_IS: Tensor = codec.decoder(torch.cat([vectors_IDT, value_ICT], dim=1)).float()
    return wave_IS


def draw_values(
    head: AcousticHead,
    hidden_ND: Tensor,
    guidance_N: Tensor,
    noise_NC: Tensor,
) -> Tensor:
    """Whole acoustic values [N, C] to which the flow brings noise, each with a guidance of its own;
    gradients pass the rounding straight through."""
    device = hidden_ND.device
    value_NC = head.flow(hidden_ND.float(), noise_NC.to(device), guidance_N[:, None].to(device))
    whole_NC = to_values(to_levels(value_NC.detach(), head.levels).round(), head.levels)
    return value_NC + (whole_NC - value_NC).detach()


@torch.no_grad()
def scheduled_sampling(
    batch: Batch,
    codes_BLK: Tensor,
    hidden_ND: Tensor,
    guidance_B: Tensor,
    head: AcousticHead,
    noise_NC: Tensor,
) -> Tensor:
    """Codes [B, L, K] in which the target frames of every item with a guidance (others have 0) have
    levels drawn from their hidden states and noise. Semantic codes, voices and targets stay."""
    guidance_N = guidance_B[batch.item_N]
    frame_N = (batch.target_NK[:, 0] >= SHIFT) & (guidance_N > 0)
    value_NC = draw_values(head, hidden_ND[frame_N], guidance_N[frame_N], noise_NC[frame_N])
    level_NC = to_levels(value_NC, head.levels).round().long() + SHIFT
    drawn_BLK = codes_BLK.clone()
    drawn_BLK[batch.item_N[frame_N], batch.position_N[frame_N] + 1, 1:] = level_NC
    return drawn_BLK
