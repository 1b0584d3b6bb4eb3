"""Clones heard while an encoder learns.

A voice is there to be cloned, and codes may be near the true ones and still lack what the language
model takes a voice from. So the frozen release says other texts of the same speakers in the voices
that the encoder gives it, and a frozen network must find out among speakers whose voice each is
(InfoNCE, arXiv 1807.03748). The gradient goes back through decoder, flow and language model into
the rows of the voice, and from there straight through the levels into the encoder. Semantic codes
get none. What was said before are levels of the model's own drawing, as when it speaks (as in
`rehearsal`).

Shapes: B items of a part, I items of all parts, R speakers to choose from, S samples, L positions,
D width, K code books, N frames of a batch, T frames, C acoustic channels, Q levels, E embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from recipes.mini_release.triples import Example
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.codec.quantizer import to_levels
from voxclone.config import Settings
from voxclone.data.corpus import Corpus, Subset
from voxclone.errors import ConfigError
from voxclone.train.listeners import SCALE, freeze
from voxclone.train.rehearsal import decode_drawn, draw_values, rehearse
from voxclone.train.sequences import Batch, embed, sequences
from voxclone.tts.acoustic import SHIFT
from voxclone.tts.backbone import Backbone
from voxclone.tts.tts import TTS

Hear = Callable[[Tensor], Tensor]
"""Waveforms [B, S] -> unit vectors [B, E] of who is speaking, with gradients."""


class CloneSettings(Settings):
    """`items` speakers are cloned in a step, `at_once` of them in memory at a time, and told from
    each other and from `strangers` more.
    Lengths are in frames: of the voice (drawn for each step), of clips that may be said, and of
    what is heard of each. `guidance` is drawn between the two for each item."""

    items: int = 8
    at_once: int = Field(default=8, ge=1)
    strangers: int = 24
    voice_frames: tuple[int, int] = (60, 150)
    target_frames: tuple[int, int] = (32, 90)
    heard_frames: int = 32
    stranger_frames: int = 50
    guidance: tuple[float, float] = (1.0, 3.0)

    @model_validator(mode="after")
    def _are_long_enough(self) -> "CloneSettings":
        if self.heard_frames > self.target_frames[0]:
            raise ValueError("`heard_frames` may not be more than the shortest of `target_frames`")
        return self


@dataclass(frozen=True)
class Cast:
    """Speakers who can be cloned: all clips of each, and those whose text may be said."""

    corpus: Corpus
    clips: dict[str, list[int]]
    spoken: dict[str, list[int]]

    @classmethod
    def of(cls, subset: Subset, settings: CloneSettings, frame_size: int) -> "Cast":
        """Speakers with a clip that has a text and a fitting length, and enough besides it for the
        longest voice. Raises ConfigError if there are too few of them."""
        corpus, clips, spoken = subset.corpus, {}, {}
        low, high = (frames * frame_size for frames in settings.target_frames)
        most = settings.voice_frames[1] * frame_size
        for name, own in subset.by_speaker().items():
            lengths = {i: corpus.length(i) for i in own}
            spare = sum(lengths.values()) - most
            fitting = [
                i for i in own
                if low <= lengths[i] <= high and lengths[i] <= spare and corpus.clips[i].text
            ]  # fmt: skip
            if fitting:
                clips[name], spoken[name] = own, fitting
        wanted = settings.items + settings.strangers
        if len(clips) < wanted:
            raise ConfigError(
                f"The weight `cloned` needs {wanted} speakers (`clones.items` and "
                f"`clones.strangers`) with a text to say and {most / frame_size:g} frames of other "
                f"speech; this one has {len(clips)}: give more, or set `weights.cloned` to 0."
            )
        return cls(corpus, clips, spoken)


@dataclass(frozen=True)
class Scene:
    """A step's material. `voice_IS` and the strangers' [R - I, S] are recordings; `said` are clips
    [S] of whole frames, and `texts` their words."""

    voice_IS: Tensor
    stranger_RS: Tensor
    said: list[Tensor]
    texts: list[str]


@dataclass(frozen=True)
class CloneListener:
    """The frozen model that speaks, and the frozen network that hears."""

    model: TTS
    hear: Hear
    cast: Cast
    settings: CloneSettings
    slope_XD: Tensor
    """By how much a row changes with each level of each channel (X = C * Q)."""

    @classmethod
    def frozen(cls, model: TTS, hear: Hear, cast: Cast, settings: CloneSettings) -> "CloneListener":
        freeze(model.backbone, model.head)
        slope_XD = level_slopes(model.backbone, model.head.levels).flatten(0, 1)
        return cls(model, hear, cast, settings, slope_XD)


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


def draw_scene(
    cast: Cast, settings: CloneSettings, frame_size: int, generator: torch.Generator
) -> Scene:
    """Speakers, their voices, what they say, and strangers. All is drawn, whichever part of it a
    process then uses."""
    names = list(cast.clips)
    wanted = settings.items + settings.strangers
    chosen = [names[i] for i in torch.randperm(len(names), generator=generator)[:wanted].tolist()]
    low, high = settings.voice_frames
    samples = int(torch.randint(low, high + 1, (1,), generator=generator)) * frame_size
    voices, said, texts = [], [], []
    for name in chosen[: settings.items]:
        spoken = cast.spoken[name]
        clip = spoken[int(torch.randint(len(spoken), (1,), generator=generator))]
        whole = cast.corpus.length(clip) // frame_size * frame_size
        said.append(cast.corpus.wave(clip, 0, whole))
        texts.append(cast.corpus.clips[clip].text or "")
        others = [i for i in cast.clips[name] if i != clip]
        voices.append(_joined(cast.corpus, others, samples, generator))
    short = settings.stranger_frames * frame_size
    strangers = [
        _joined(cast.corpus, cast.clips[name], short, generator)
        for name in chosen[settings.items :]
    ]
    empty_RS = torch.zeros(0, short)
    return Scene(
        torch.stack(voices), torch.stack(strangers) if strangers else empty_RS, said, texts
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


def cloned_loss(
    listener: CloneListener,
    codec: Codec,
    scene: Scene,
    part: slice,
    sources: Sequence[torch.Generator],
) -> tuple[Tensor, Tensor]:
    """The cross-entropy of whose voice the clones of this part's items have, and the share that is
    told right. `sources` has a generator for each item."""
    device = next(codec.decoder.parameters()).device
    voice_IS = scene.voice_IS.to(device)
    latent_BDT = codec.require_encoder()(voice_IS[part]).float()
    with torch.no_grad():
        voice_BKT = codec.quantizer.encode(latent_BDT)
        said = [codec.encode(wave_S[None].to(device))[0] for wave_S in scene.said[part]]
        known_RE = listener.hear(voice_IS).float()
        if len(scene.stranger_RS):
            known_RE = torch.cat([known_RE, listener.hear(scene.stranger_RS.to(device)).float()])
    examples = [
        Example(
            voice_KT.T.cpu(),
            listener.model.prompts.text_ids(text),
            said_KT.T.cpu(),
            torch.full((said_KT.shape[1],), -1),
        )
        for voice_KT, said_KT, text in zip(voice_BKT, said, scene.texts[part], strict=True)
    ]
    batch = sequences(examples, listener.model.prompts, listener.model.params, device)
    lift_BTD = _lift(listener, codec, latent_BDT, voice_BKT)
    wave_BS = _spoken(listener, codec, batch, lift_BTD, sources)
    cosine_BR = listener.hear(wave_BS).float() @ known_RE.T
    own_B = torch.arange(len(scene.voice_IS), device=device)[part]
    loss = F.cross_entropy(SCALE * cosine_BR, own_B)
    return loss, (cosine_BR.argmax(dim=-1) == own_B).float().mean()


def _lift(listener: CloneListener, codec: Codec, latent_BDT: Tensor, voice_BKT: Tensor) -> Tensor:
    """Zeros [B, T, D] whose gradient is that of the voice's rows with respect to the latent."""
    quantizer = codec.quantizer
    _, acoustic_BCT = quantizer.split(latent_BDT)
    place_BTC = to_levels(torch.tanh(acoustic_BCT), quantizer.levels).transpose(1, 2)
    moved_BTC = place_BTC - place_BTC.detach()
    at_BTCQ = F.one_hot(voice_BKT[:, 1:].transpose(1, 2), quantizer.levels) * moved_BTC[..., None]
    return at_BTCQ.flatten(2) @ listener.slope_XD.to(at_BTCQ.dtype)


@dataclass(frozen=True)
class _Drawn:
    """What is drawn for the items of a part: a guidance of each, noise for all its frames and for
    those that are heard, and which of the batch's frames these are."""

    guidance_B: Tensor
    noise_NC: Tensor
    heard_BT: Tensor
    heard_noise_NC: Tensor


def _draw(
    settings: CloneSettings, channels: int, batch: Batch, sources: Sequence[torch.Generator]
) -> _Drawn:
    """On the batch's device; the items' generators, in the order of their fields."""
    low, high = settings.guidance
    guidances, noises, places, heard = [], [], [], []
    begin = 0
    for row, source in enumerate(sources):
        count = int((batch.item_N == row).sum())
        guidances.append(low + (high - low) * torch.rand(1, generator=source))
        first = int(torch.randint(count - settings.heard_frames, (1,), generator=source))
        noises.append(torch.randn(count, channels, generator=source))
        heard.append(torch.randn(settings.heard_frames, channels, generator=source))
        places.append(torch.arange(settings.heard_frames) + begin + first)
        begin += count
    drawn = (torch.cat(guidances), torch.cat(noises), torch.stack(places), torch.cat(heard))
    return _Drawn(*(tensor.to(batch.ids_BL.device) for tensor in drawn))


def _spoken(
    listener: CloneListener,
    codec: Codec,
    batch: Batch,
    lift_BTD: Tensor,
    sources: Sequence[torch.Generator],
) -> Tensor:
    """A stretch of what is said in each voice, decoded [B, S]."""
    backbone, head = listener.model.backbone, listener.model.head
    drawn = _draw(listener.settings, head.channels, batch, sources)
    guidance_B, heard_BT = drawn.guidance_B, drawn.heard_BT
    with torch.no_grad():
        hidden_ND = _states(backbone, batch, batch.codes_BLK, lift_BTD.detach())
        codes_BLK = rehearse(batch, batch.codes_BLK, hidden_ND, guidance_B, head, drawn.noise_NC)
    hidden_ND = _states(backbone, batch, codes_BLK, lift_BTD)
    guidance_N = guidance_B.repeat_interleave(heard_BT.shape[1])
    value_NC = draw_values(head, hidden_ND[heard_BT.flatten()], guidance_N, drawn.heard_noise_NC)
    semantic_BT = batch.target_NK[heard_BT][..., 0] - SHIFT
    return decode_drawn(codec, semantic_BT, value_NC.unflatten(0, heard_BT.shape).transpose(1, 2))


def _states(backbone: Backbone, batch: Batch, codes_BLK: Tensor, lift_BTD: Tensor) -> Tensor:
    """States [N, D] that predict the frames; `lift` is added to the rows of the voices, which all
    begin at the same place."""
    embedded_BLD = embed(backbone, batch, codes_BLK)
    begin = int(batch.is_code_BL[0].int().argmax())
    after = embedded_BLD.shape[1] - begin - lift_BTD.shape[1]
    lifted_BLD = embedded_BLD + F.pad(lift_BTD, (0, 0, begin, after)).to(embedded_BLD.dtype)
    hidden_BLD = backbone(lifted_BLD)
    return hidden_BLD[batch.item_N, batch.place_N]
