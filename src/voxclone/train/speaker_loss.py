"""The speaker loss through the language model: clones must be distinguishable.

Codes may be near the true ones and still lack what the language model takes a voice from. So the
frozen release speaks other texts of the same speakers in the voices that the encoder gives it. A
frozen speaker encoder must find the speaker of each among others (InfoNCE, arXiv 1807.03748).
The gradient goes back through decoder, flow and language model into the voice embedding, and from
there straight through the levels into the encoder. Semantic codes get none. The frames before
have levels of the model's own drawing, as when it speaks (scheduled sampling).

Shapes: B items of a part, I items of all parts, R speakers to choose from, S samples, L positions,
D width, K codebooks, N frames of a batch, T frames, C acoustic channels, Q levels, E embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.codec.quantizer import to_levels
from voxclone.data.speakers import Sizes, SpeakerBatch, SpeakerPool
from voxclone.spec import SHIFT
from voxclone.train.sequences import (
    Batch,
    Example,
    decode_values,
    draw_values,
    embed,
    scheduled_sampling,
    sequences,
)
from voxclone.tts.backbone import Backbone
from voxclone.tts.tts import TTS

SCALE = 20.0
"""What cosines are multiplied by before the softmax."""

Embed = Callable[[Tensor], Tensor]
"""Waveforms [B, S] -> unit vectors [B, E] of who is speaking, with gradients."""


@dataclass(frozen=True)
class SpeakerLoss:
    """The frozen model that speaks, and the frozen speaker encoder that embeds."""

    model: TTS
    embed: Embed
    pool: SpeakerPool
    sizes: Sizes
    slope_XD: Tensor
    """By how much a row changes with each level of each channel (X = C * Q)."""

    @classmethod
    def frozen(cls, model: TTS, embed: Embed, pool: SpeakerPool, sizes: Sizes) -> "SpeakerLoss":
        for network in (model.backbone, model.head):
            network.eval().requires_grad_(False)
        slope_XD = level_slopes(model.backbone, model.head.levels).flatten(0, 1)
        return cls(model, embed, pool, sizes, slope_XD)


def level_slopes(backbone: Backbone, levels: int) -> Tensor:
    """Change [C, Q, D] of a voice row from one level of a channel to the next: the mean of both
    neighbors' where there are two."""
    starts = [int(offset) + SHIFT for offset in backbone.offsets_K[1:]]
    table_CQD = torch.stack([backbone.audio_table.weight[s : s + levels] for s in starts]).float()
    below_CQD = torch.cat([table_CQD[:, :1], table_CQD[:, :-1]], dim=1)
    above_CQD = torch.cat([table_CQD[:, 1:], table_CQD[:, -1:]], dim=1)
    distance_Q = torch.full((levels,), 2.0)
    distance_Q[[0, -1]] = 1.0
    return (above_CQD - below_CQD) / distance_Q.to(table_CQD.device)[:, None]


def speaker_loss(
    frozen: SpeakerLoss,
    codec: Codec,
    batch: SpeakerBatch,
    part: slice,
    sources: Sequence[torch.Generator],
) -> tuple[Tensor, Tensor]:
    """The cross-entropy of whose voice the clones of this part's items have, and the share that is
    right. `sources` has a generator for each item."""
    device = codec.device
    voice_IS = batch.voice_IS.to(device)
    latent_BDT = codec.require_encoder()(voice_IS[part]).float()
    with torch.no_grad():
        voice_BKT = codec.quantizer.encode(latent_BDT)
        targets = [codec.encode(wave_S[None].to(device))[0] for wave_S in batch.targets[part]]
        known_RE = frozen.embed(voice_IS).float()
        if len(batch.negative_RS):
            negative_RE = frozen.embed(batch.negative_RS.to(device)).float()
            known_RE = torch.cat([known_RE, negative_RE])
    examples = [
        Example(
            voice_KT.T.cpu(),
            frozen.model.prompts.text_ids(text),
            target_KT.T.cpu(),
            torch.full((target_KT.shape[1],), -1),
        )
        for voice_KT, target_KT, text in zip(voice_BKT, targets, batch.texts[part], strict=True)
    ]
    prompts = sequences(examples, frozen.model.prompts, frozen.model.params, device)
    lift_BTD = _lift(frozen, codec, latent_BDT, voice_BKT)
    wave_BS = _clones(frozen, codec, prompts, lift_BTD, sources)
    cosine_BR = frozen.embed(wave_BS).float() @ known_RE.T
    own_B = torch.arange(len(batch.voice_IS), device=device)[part]
    loss = F.cross_entropy(SCALE * cosine_BR, own_B)
    return loss, (cosine_BR.argmax(dim=-1) == own_B).float().mean()


def _lift(frozen: SpeakerLoss, codec: Codec, latent_BDT: Tensor, voice_BKT: Tensor) -> Tensor:
    """Zeros [B, T, D] whose gradient is that of the voice embedding with respect to the latent."""
    quantizer = codec.quantizer
    _, acoustic_BCT = quantizer.split(latent_BDT)
    level_BTC = to_levels(torch.tanh(acoustic_BCT), quantizer.levels).transpose(1, 2)
    delta_BTC = level_BTC - level_BTC.detach()
    at_BTCQ = F.one_hot(voice_BKT[:, 1:].transpose(1, 2), quantizer.levels) * delta_BTC[..., None]
    return at_BTCQ.flatten(2) @ frozen.slope_XD.to(at_BTCQ.dtype)


def _draw(
    sizes: Sizes, channels: int, batch: Batch, sources: Sequence[torch.Generator]
) -> list[Tensor]:
    """For the items of a part, on the batch's device: a guidance [B] of each, noise [N, C] for all
    its frames, which [B, T] of the batch's frames are embedded, and noise [B T, C] for those."""
    low, high = sizes.guidance
    guidances, noises, crop_indices, crop_noises = [], [], [], []
    begin = 0
    for row, source in enumerate(sources):
        count = int((batch.item_N == row).sum())
        guidances.append(low + (high - low) * torch.rand(1, generator=source))
        first = int(torch.randint(count - sizes.crop_frames, (1,), generator=source))
        noises.append(torch.randn(count, channels, generator=source))
        crop_noises.append(torch.randn(sizes.crop_frames, channels, generator=source))
        crop_indices.append(torch.arange(sizes.crop_frames) + begin + first)
        begin += count
    drawn = (
        torch.cat(guidances),
        torch.cat(noises),
        torch.stack(crop_indices),
        torch.cat(crop_noises),
    )
    return [tensor.to(batch.ids_BL.device) for tensor in drawn]


def _clones(
    frozen: SpeakerLoss,
    codec: Codec,
    batch: Batch,
    lift_BTD: Tensor,
    sources: Sequence[torch.Generator],
) -> Tensor:
    """A stretch of the target speech in each voice, decoded [B, S]."""
    backbone, head = frozen.model.backbone, frozen.model.head
    drawn = _draw(frozen.sizes, head.channels, batch, sources)
    guidance_B, noise_NC, crop_BT, crop_noise_NC = drawn
    with torch.no_grad():
        hidden_ND = _states(backbone, batch, batch.codes_BLK, lift_BTD.detach())
        codes_BLK = scheduled_sampling(
            batch, batch.codes_BLK, hidden_ND, guidance_B, head, noise_NC
        )
    hidden_ND = _states(backbone, batch, codes_BLK, lift_BTD)
    guidance_N = guidance_B.repeat_interleave(crop_BT.shape[1])
    value_NC = draw_values(head, hidden_ND[crop_BT.flatten()], guidance_N, crop_noise_NC)
    semantic_BT = batch.target_NK[crop_BT][..., 0] - SHIFT
    return decode_values(codec, semantic_BT, value_NC.unflatten(0, crop_BT.shape).transpose(1, 2))


def _states(backbone: Backbone, batch: Batch, codes_BLK: Tensor, lift_BTD: Tensor) -> Tensor:
    """States [N, D] that predict the frames; `lift` is added to the voice embeddings, which all
    begin at the same position."""
    embedded_BLD = embed(backbone, batch, codes_BLK)
    begin = int(batch.is_code_BL[0].int().argmax())
    after = embedded_BLD.shape[1] - begin - lift_BTD.shape[1]
    lifted_BLD = embedded_BLD + F.pad(lift_BTD, (0, 0, begin, after)).to(embedded_BLD.dtype)
    hidden_BLD = backbone(lifted_BLD)
    return hidden_BLD[batch.item_N, batch.position_N]
