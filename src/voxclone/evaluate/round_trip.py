"""Speech encoded, decoded and encoded again: what a codec keeps, and what precision and batches
change.

Shapes: S samples, K codebooks, T frames, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.errors import AudioError
from voxclone.evaluate.agreement import (
    Agreement,
    agreement,
    agreements,
    chance_agreements,
    mean_agreement,
)
from voxclone.evaluate.progress import Track
from voxclone.evaluate.signal import level_difference, mel_distance
from voxclone.evaluate.speechset import Utterance
from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.voice.presets import Inversion

BATCH_SECONDS = 2.0
BATCH_CLIPS = 8
SILENT_DB = -60.0


@dataclass(frozen=True)
class EncodedUtterance:
    """An utterance with its semantic latents [D, T] and codes [K, T]."""

    utterance: Utterance
    semantic_DT: Tensor
    codes_KT: Tensor


@dataclass(frozen=True)
class RoundTrip:
    """Real speech encoded and decoded: mel distance and level difference (dB) to the recordings.
    Agreement with codes computed in fp32, one clip at a time: of codes computed in bf16, and in a
    batch. Agreement of presets, decoded and encoded again, with their codes."""

    mel_distance: Interval
    level_difference: Interval
    bf16: Agreement
    batched: Agreement
    presets: Agreement
    presets_by_chance: Agreement


@torch.inference_mode()
def encode(codec: Codec, utterance: Utterance) -> EncodedUtterance:
    """Latents and codes in fp32."""
    latent_BDT = codec.latents(utterance.wave_S[None])
    semantic_BDT, _ = codec.quantizer.split(latent_BDT)
    return EncodedUtterance(utterance, semantic_BDT[0], codec.quantizer.encode(latent_BDT)[0])


@torch.inference_mode()
def round_trip(
    codec: Codec,
    encoded: Sequence[EncodedUtterance],
    inversions: Mapping[str, Inversion],
    track: Track,
) -> RoundTrip:
    """Decode the codes of real speech, encode it in bf16 and in a batch, and re-encode presets."""
    mel, level, bf16 = [], [], []
    for each in track(encoded, "decoding"):
        wave_S = each.utterance.wave_S
        decoded_S = codec.decode(each.codes_KT[None])[0][: len(wave_S)]
        mel.append(mel_distance(wave_S, decoded_S))
        level.append(_level_difference(wave_S, decoded_S))
        bf16_KT = codec.encode(wave_S[None], dtype=torch.bfloat16)[0]
        bf16.append(agreement(each.codes_KT, bf16_KT))
    truth = [found.codes_KT for found in inversions.values()]
    again = [codec.encode(codec.decode(codes_KT[None]))[0] for codes_KT in track(truth, "presets")]
    speakers = [each.utterance.speaker for each in encoded]
    return RoundTrip(
        mel_distance=bootstrap(mel, speakers),
        level_difference=bootstrap(level, speakers),
        bf16=mean_agreement(bf16),
        batched=_batched(codec, [each.utterance.wave_S for each in encoded]),
        presets=mean_agreement(agreements(truth, again)),
        presets_by_chance=mean_agreement(chance_agreements(truth)),
    )


def _level_difference(wave_S: Tensor, decoded_S: Tensor) -> float:
    try:
        return level_difference(wave_S, decoded_S)
    except AudioError:
        return SILENT_DB  # the decoded speech is silent


def _batched(codec: Codec, waves: Sequence[Tensor]) -> Agreement:
    """The first seconds of some clips, encoded together and one at a time."""
    samples = int(BATCH_SECONDS * codec.sampling_rate)
    clips = [wave_S[:samples] for wave_S in waves if len(wave_S) >= samples][:BATCH_CLIPS]
    if not clips:
        clips = [wave_S[: codec.sampling_rate] for wave_S in waves[:BATCH_CLIPS]]
    together_BKT = codec.encode(torch.stack(clips))
    alone = [codec.encode(wave_S[None])[0] for wave_S in clips]
    return mean_agreement(agreements(alone, list(together_BKT)))
