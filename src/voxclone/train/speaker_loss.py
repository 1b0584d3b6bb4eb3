"""The speaker loss through the language model: clones must be told from other speakers.

Codes may be near the true ones and still lack what the language model takes a voice from. So the
frozen release says other texts of the same speakers in the voices that the encoder gives it, and a
frozen speaker encoder must find out among speakers whose voice each is (InfoNCE, arXiv 1807.03748).
The gradient goes back through decoder, flow and language model into the rows of the voice, and from
there straight through the levels into the encoder. Semantic codes get none. What was said before
are levels of the model's own drawing, as when it speaks (scheduled sampling).

Shapes: B items of a part, I items of all parts, R speakers to choose from, S samples, L positions,
D width, K code books, N frames of a batch, T frames, C acoustic channels, Q levels, E embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.codec.quantizer import to_levels
from voxclone.data.corpus import Corpus, Subset
from voxclone.errors import ConfigError
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
class Sizes:
    """`items` speakers are cloned in a step, and told from each other and from `negatives` more.
    Lengths are in frames: of the voice (drawn for each step), of clips that may be said, of the
    stretch of each clone that is embedded, and of negatives. `guidance` is drawn between the two
    for each item."""

    items: int = 8
    negatives: int = 24
    voice_frames: tuple[int, int] = (60, 150)
    target_frames: tuple[int, int] = (32, 90)
    crop_frames: int = 32
    negative_frames: int = 50
    guidance: tuple[float, float] = (1.0, 3.0)

    def __post_init__(self) -> None:
        if self.crop_frames > self.target_frames[0]:
            raise ValueError("`crop_frames` may not be more than the shortest of `target_frames`")


@dataclass(frozen=True)
class SpeakerPool:
    """Speakers who can be cloned: all clips of each, and those whose text may be said."""

    corpus: Corpus
    clips: dict[str, list[int]]
    spoken: dict[str, list[int]]

    @classmethod
    def of(cls, speech: Subset, sizes: Sizes, frame_size: int) -> "SpeakerPool":
        """Speakers with a clip that has a text and a fitting length, and enough besides it for the
        longest voice. Raises ConfigError if there are too few of them."""
        corpus, clips, spoken = speech.corpus, {}, {}
        low, high = (frames * frame_size for frames in sizes.target_frames)
        most = sizes.voice_frames[1] * frame_size
        for name, own in speech.by_speaker().items():
            lengths = {i: corpus.length(i) for i in own}
            spare = sum(lengths.values()) - most
            fitting = [
                i for i in own
                if low <= lengths[i] <= high and lengths[i] <= spare and corpus.clips[i].text
            ]  # fmt: skip
            if fitting:
                clips[name], spoken[name] = own, fitting
        wanted = sizes.items + sizes.negatives
        if len(clips) < wanted:
            raise ConfigError(
                f"The weight `speaker_contrastive` needs {wanted} speakers with a text to say and "
                f"{most / frame_size:g} frames of other speech; this speech has {len(clips)}: give "
                "more, or set `weights.speaker_contrastive` to 0."
            )
        return cls(corpus, clips, spoken)


@dataclass(frozen=True)
class SpeakerBatch:
    """A step's material. `voice_IS` and the negatives' [R - I, S] are recordings; `said` are clips
    [S] of whole frames, and `texts` their words."""

    voice_IS: Tensor
    negative_RS: Tensor
    said: list[Tensor]
    texts: list[str]


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
    neighbours' where there are two."""
    starts = [int(offset) + SHIFT for offset in backbone.offsets_K[1:]]
    table_CQD = torch.stack([backbone.audio_table.weight[s : s + levels] for s in starts]).float()
    below_CQD = torch.cat([table_CQD[:, :1], table_CQD[:, :-1]], dim=1)
    above_CQD = torch.cat([table_CQD[:, 1:], table_CQD[:, -1:]], dim=1)
    apart_Q = torch.full((levels,), 2.0)
    apart_Q[[0, -1]] = 1.0
    return (above_CQD - below_CQD) / apart_Q.to(table_CQD.device)[:, None]


def draw_speakers(
    pool: SpeakerPool, sizes: Sizes, frame_size: int, generator: torch.Generator
) -> SpeakerBatch:
    """Speakers, their voices, what they say, and negatives. All is drawn, whichever part of it a
    process then uses."""
    names = list(pool.clips)
    wanted = sizes.items + sizes.negatives
    chosen = [names[i] for i in torch.randperm(len(names), generator=generator)[:wanted].tolist()]
    low, high = sizes.voice_frames
    samples = int(torch.randint(low, high + 1, (1,), generator=generator)) * frame_size
    voices, said, texts = [], [], []
    for name in chosen[: sizes.items]:
        spoken = pool.spoken[name]
        clip = spoken[int(torch.randint(len(spoken), (1,), generator=generator))]
        whole = pool.corpus.length(clip) // frame_size * frame_size
        said.append(pool.corpus.wave(clip, 0, whole))
        texts.append(pool.corpus.clips[clip].text or "")
        others = [i for i in pool.clips[name] if i != clip]
        voices.append(_joined(pool.corpus, others, samples, generator))
    short = sizes.negative_frames * frame_size
    negatives = [
        _joined(pool.corpus, pool.clips[name], short, generator) for name in chosen[sizes.items :]
    ]
    empty_RS = torch.zeros(0, short)
    return SpeakerBatch(
        torch.stack(voices), torch.stack(negatives) if negatives else empty_RS, said, texts
    )


def _joined(corpus: Corpus, own: Sequence[int], samples: int, generator: torch.Generator) -> Tensor:
    """So many samples out of clips in random order, from a random place on."""
    parts: list[Tensor] = []
    for place in torch.randperm(len(own), generator=generator).tolist():
        parts.append(corpus.wave(own[place]))
        if sum(len(part) for part in parts) >= samples:
            break
    wave_S = torch.cat(parts)
    wave_S = F.pad(wave_S, (0, max(0, samples - len(wave_S))))
    start = int(torch.randint(len(wave_S) - samples + 1, (1,), generator=generator))
    return wave_S[start : start + samples]


def speaker_loss(
    frozen: SpeakerLoss,
    codec: Codec,
    batch: SpeakerBatch,
    part: slice,
    sources: Sequence[torch.Generator],
) -> tuple[Tensor, Tensor]:
    """The cross-entropy of whose voice the clones of this part's items have, and the share that is
    right. `sources` has a generator for each item."""
    device = next(codec.decoder.parameters()).device
    voice_IS = batch.voice_IS.to(device)
    latent_BDT = codec.require_encoder()(voice_IS[part]).float()
    with torch.no_grad():
        voice_BKT = codec.quantizer.encode(latent_BDT)
        said = [codec.encode(wave_S[None].to(device))[0] for wave_S in batch.said[part]]
        known_RE = frozen.embed(voice_IS).float()
        if len(batch.negative_RS):
            negative_RE = frozen.embed(batch.negative_RS.to(device)).float()
            known_RE = torch.cat([known_RE, negative_RE])
    examples = [
        Example(
            voice_KT.T.cpu(),
            frozen.model.prompts.text_ids(text),
            said_KT.T.cpu(),
            torch.full((said_KT.shape[1],), -1),
        )
        for voice_KT, said_KT, text in zip(voice_BKT, said, batch.texts[part], strict=True)
    ]
    prompts = sequences(examples, frozen.model.prompts, frozen.model.params, device)
    lift_BTD = _lift(frozen, codec, latent_BDT, voice_BKT)
    wave_BS = _clones(frozen, codec, prompts, lift_BTD, sources)
    cosine_BR = frozen.embed(wave_BS).float() @ known_RE.T
    own_B = torch.arange(len(batch.voice_IS), device=device)[part]
    loss = F.cross_entropy(SCALE * cosine_BR, own_B)
    return loss, (cosine_BR.argmax(dim=-1) == own_B).float().mean()


def _lift(frozen: SpeakerLoss, codec: Codec, latent_BDT: Tensor, voice_BKT: Tensor) -> Tensor:
    """Zeros [B, T, D] whose gradient is that of the voice's rows with respect to the latent."""
    quantizer = codec.quantizer
    _, acoustic_BCT = quantizer.split(latent_BDT)
    place_BTC = to_levels(torch.tanh(acoustic_BCT), quantizer.levels).transpose(1, 2)
    moved_BTC = place_BTC - place_BTC.detach()
    at_BTCQ = F.one_hot(voice_BKT[:, 1:].transpose(1, 2), quantizer.levels) * moved_BTC[..., None]
    return at_BTCQ.flatten(2) @ frozen.slope_XD.to(at_BTCQ.dtype)


@dataclass(frozen=True)
class _Drawn:
    """What is drawn for the items of a part: a guidance of each, noise for all its frames and for
    those that are embedded, and which of the batch's frames these are."""

    guidance_B: Tensor
    noise_NC: Tensor
    place_BT: Tensor
    place_noise_NC: Tensor


def _draw(sizes: Sizes, channels: int, batch: Batch, sources: Sequence[torch.Generator]) -> _Drawn:
    """On the batch's device; the items' generators, in the order of their fields."""
    low, high = sizes.guidance
    guidances, noises, places, place_noises = [], [], [], []
    begin = 0
    for row, source in enumerate(sources):
        count = int((batch.item_N == row).sum())
        guidances.append(low + (high - low) * torch.rand(1, generator=source))
        first = int(torch.randint(count - sizes.crop_frames, (1,), generator=source))
        noises.append(torch.randn(count, channels, generator=source))
        place_noises.append(torch.randn(sizes.crop_frames, channels, generator=source))
        places.append(torch.arange(sizes.crop_frames) + begin + first)
        begin += count
    drawn = (torch.cat(guidances), torch.cat(noises), torch.stack(places), torch.cat(place_noises))
    return _Drawn(*(tensor.to(batch.ids_BL.device) for tensor in drawn))


def _clones(
    frozen: SpeakerLoss,
    codec: Codec,
    batch: Batch,
    lift_BTD: Tensor,
    sources: Sequence[torch.Generator],
) -> Tensor:
    """A stretch of what is said in each voice, decoded [B, S]."""
    backbone, head = frozen.model.backbone, frozen.model.head
    drawn = _draw(frozen.sizes, head.channels, batch, sources)
    guidance_B, place_BT = drawn.guidance_B, drawn.place_BT
    with torch.no_grad():
        hidden_ND = _states(backbone, batch, batch.codes_BLK, lift_BTD.detach())
        codes_BLK = scheduled_sampling(
            batch, batch.codes_BLK, hidden_ND, guidance_B, head, drawn.noise_NC
        )
    hidden_ND = _states(backbone, batch, codes_BLK, lift_BTD)
    guidance_N = guidance_B.repeat_interleave(place_BT.shape[1])
    value_NC = draw_values(head, hidden_ND[place_BT.flatten()], guidance_N, drawn.place_noise_NC)
    semantic_BT = batch.target_NK[place_BT][..., 0] - SHIFT
    return decode_values(codec, semantic_BT, value_NC.unflatten(0, place_BT.shape).transpose(1, 2))


def _states(backbone: Backbone, batch: Batch, codes_BLK: Tensor, lift_BTD: Tensor) -> Tensor:
    """States [N, D] that predict the frames; `lift` is added to the rows of the voices, which all
    begin at the same place."""
    embedded_BLD = embed(backbone, batch, codes_BLK)
    begin = int(batch.is_code_BL[0].int().argmax())
    after = embedded_BLD.shape[1] - begin - lift_BTD.shape[1]
    lifted_BLD = embedded_BLD + F.pad(lift_BTD, (0, 0, begin, after)).to(embedded_BLD.dtype)
    hidden_BLD = backbone(lifted_BLD)
    return hidden_BLD[batch.item_N, batch.place_N]
