"""Figures of an encoder in training that need nothing but the release and some speech.

Shapes: B batch, S samples, K code books, T frames, N voice rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.data.corpus import Subset, step_generator
from voxclone.evaluate.agreement import agreement
from voxclone.train.log import Log
from voxclone.train.losses import mel_loss
from voxclone.train.selection import LEVELS, NLL, SEMANTIC
from voxclone.tts.likelihood import likelihood
from voxclone.tts.tts import TTS
from voxclone.voice.rows import voice_rows

VOICE_FRAMES = 100


def preset_agreement(codec: Codec, presets: Mapping[str, Tensor]) -> dict[str, float]:
    """Of the codes [K, T] of presets, decoded and encoded again: shares that are right."""
    device = codec.quantizer.semantic_codebook.cluster_usage.device
    results = []
    for codes_KT in presets.values():
        wave_BS = codec.decode(codes_KT[None].to(device))
        results.append(agreement(codes_KT, codec.encode(wave_BS)[0].cpu()))
    return {
        SEMANTIC: sum(r.semantic for r in results) / len(results),
        "preset/exact": sum(r.exact for r in results) / len(results),
        LEVELS: sum(r.within_one for r in results) / len(results),
    }


@dataclass(frozen=True)
class Health:
    """Figures of real speech [B, S], its codes [B, K, T], and what they are decoded to [B, S]."""

    figures: dict[str, float]
    wave_BS: Tensor
    codes_BKT: Tensor
    decoded_BS: Tensor


def health_of(codec: Codec, wave_BS: Tensor) -> Health:
    """What an encoder makes of real speech [B, S]."""
    codes_BKT = codec.encode(wave_BS)
    decoded_BS = codec.decode(codes_BKT)[:, : wave_BS.shape[-1]]
    semantic_N, levels = codes_BKT[:, 0].flatten(), codes_BKT[:, 1:]
    counts = semantic_N.unique(return_counts=True)[1]
    top = codec.quantizer.levels - 1
    figures = {
        "real/mel": float(mel_loss(decoded_BS, wave_BS)),
        "real/codes_in_use": float(len(counts)),
        "real/frames": float(len(semantic_N)),
        "real/largest_share": float(counts.max()) / len(semantic_N),
        "real/extreme": float(((levels == 0) | (levels == top)).float().mean()),
    }
    return Health(figures, wave_BS, codes_BKT, decoded_BS)


def show_health(health: Health, codec: Codec, step: int, log: Log) -> None:
    """The first recording and what became of it, to be heard and seen; the codes of all."""
    log.audio(step, "real/recording", health.wave_BS[0])
    log.audio(step, "real/decoded", health.decoded_BS[0])
    show_codes(health.codes_BKT, codec, "real", step, log)


def show_codes(codes_BKT: Tensor, codec: Codec, group: str, step: int, log: Log) -> None:
    """Which semantic codes, and which levels of all channels together, are in use."""
    sizes = codec.config.semantic_codebook_size, codec.quantizer.levels
    log.codes(step, f"{group}/semantic_codes", codes_BKT[:, 0].flatten(), sizes[0])
    log.codes(step, f"{group}/levels", codes_BKT[:, 1:].flatten(), sizes[1])


def semantic_nll(codec: Codec, model: TTS, subset: Subset, count: int) -> dict[str, float]:
    """Nats per frame that the language model finds in the semantic codes of `count` clips with a
    text, after another clip of the same speaker as their voice; always the same clips. Empty where
    no clip has both."""
    corpus, speakers = subset.corpus, subset.by_speaker()
    able = [
        i
        for i in subset.indices
        if corpus.clips[i].text and len(speakers[corpus.clips[i].speaker]) > 1
    ]
    if not able:
        return {}
    order = torch.randperm(len(able), generator=step_generator(0, 0, stream=8))[:count]
    backbone = model.backbone
    device = codec.quantizer.semantic_codebook.cluster_usage.device
    there = backbone.audio_table.weight.device
    total = 0.0
    for index in (able[place] for place in order.tolist()):
        other = next(i for i in speakers[corpus.clips[index].speaker] if i != index)
        longest = min(corpus.length(other), VOICE_FRAMES * codec.frame_size)
        voice_KT = codec.encode(corpus.wave(other, 0, longest)[None].to(device))[0].to(there)
        rows_ND = voice_rows(voice_KT, backbone.audio_table.weight, backbone.offsets_K.tolist())
        codes_KT = codec.encode(corpus.wave(index)[None].to(device))[0]
        text = corpus.clips[index].text or ""
        total += likelihood(model, rows_ND, text, codes_KT, draws=1).semantic
    return {NLL: total / len(order)}
