"""An encoder against what is known of the true one.

The presets' codes are always known: decode them, encode the result, compare. Where the true encoder
was kept (the oracle of the mini release), the true codes of every clip are known. Agreement alone
means little, so it is also *normalized*: 0 is chance (another clip's codes), 1 is the re-encoding
bound (the oracle on speech decoded from its own codes).

Shapes: K codebooks, T frames.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.evaluate.agreement import (
    Agreement,
    agreement,
    agreements,
    chance_agreements,
    mean_agreement,
)
from voxclone.evaluate.progress import Track, untracked
from voxclone.evaluate.speechset import SpeechSet
from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.release.release import Release, load_table
from voxclone.release.tensors import codebook_offsets
from voxclone.voice.embedding import embed_codes
from voxclone.voice.presets import preset_codes

SCHEMA = "voxclone.encoder/2"
KINDS = ("semantic", "exact", "within_one", "level_error")


@dataclass(frozen=True)
class CodeScores:
    """Agreement of codes, means over speakers with intervals."""

    semantic: Interval
    exact: Interval
    within_one: Interval
    level_error: Interval


@dataclass(frozen=True)
class OracleComparison:
    """Agreement with the oracle on real speech (`real`), on speech decoded from the oracle's codes
    (`decoded`) and with both encoders in bf16, beside `chance` and the re-encoding `bound`. On real
    speech: `normalized` agreement, `embedding_cosine` of voice embeddings, the encoder's share of
    levels at either end (`extreme`) and its number of semantic codes."""

    real: CodeScores
    decoded: CodeScores
    bf16: CodeScores
    chance: CodeScores
    bound: CodeScores
    normalized: dict[str, Interval]
    embedding_cosine: Interval
    extreme: Interval
    codes_in_use: int


@dataclass(frozen=True)
class EncoderReport:
    """`presets` and `presets_by_chance` need no oracle; `oracle` is None without one."""

    encoder: str
    presets: CodeScores
    presets_by_chance: CodeScores
    oracle: OracleComparison | None
    clips: int
    speakers: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """JSON values with their schema."""
        return {"schema": SCHEMA} | asdict(self)


@torch.inference_mode()
def evaluate_encoder(
    release: Release,
    codec: Codec,
    speech: SpeechSet,
    oracle: Codec | None,
    *,
    name: str,
    track: Track = untracked,
) -> EncoderReport:
    """Score the encoder of `codec` on the presets, and on `speech` if there is an `oracle`."""
    presets = preset_codes(release).codes
    names = sorted(presets)
    truth = [presets[each] for each in names]
    again = [_encoded(codec, codec.decode(codes_KT[None].to(codec.device))) for codes_KT in truth]
    return EncoderReport(
        encoder=name,
        presets=_scores(agreements(truth, again), names),
        presets_by_chance=_scores(_by_chance(truth), names),
        oracle=None if oracle is None else _compare(release, codec, speech, oracle, track),
        clips=len(speech.utterances),
        speakers=len(speech.by_speaker()),
        seconds=speech.seconds,
    )


def _compare(
    release: Release, codec: Codec, speech: SpeechSet, oracle: Codec, track: Track
) -> OracleComparison:
    table_VD, offsets = load_table(release), codebook_offsets(release.params)
    truth, own, decoded, bf16, bound = [], [], [], [], []
    for each in track(speech.utterances, "encoding"):
        wave_BS = each.wave_S[None].to(codec.device)
        true_KT = _encoded(oracle, wave_BS)
        decoded_BS = oracle.decode(true_KT[None].to(codec.device))
        truth.append(true_KT)
        own.append(_encoded(codec, wave_BS))
        decoded.append(agreement(true_KT, _encoded(codec, decoded_BS)))
        bound.append(agreement(true_KT, _encoded(oracle, decoded_BS)))
        bf16.append(agreement(*(_encoded(c, wave_BS, torch.bfloat16) for c in (oracle, codec))))
    speakers = [each.speaker for each in speech.utterances]
    real = agreements(truth, own)
    chance = _by_chance(truth)
    cosines = []
    for pair in zip(truth, own, strict=True):
        a_ND, b_ND = (embed_codes(codes_KT, table_VD, offsets)[:-1].float() for codes_KT in pair)
        cosines.append(float(F.cosine_similarity(a_ND, b_ND, dim=-1).mean()))
    top = codec.quantizer.levels - 1
    extreme = [float(((each[1:] == 0) | (each[1:] == top)).float().mean()) for each in own]
    return OracleComparison(
        real=_scores(real, speakers),
        decoded=_scores(decoded, speakers),
        bf16=_scores(bf16, speakers),
        chance=_scores(chance, speakers),
        bound=_scores(bound, speakers),
        normalized=_normalized(real, chance, bound, speakers),
        embedding_cosine=bootstrap(cosines, speakers),
        extreme=bootstrap(extreme, speakers),
        codes_in_use=len(torch.cat([each[0] for each in own]).unique()),
    )


def _encoded(codec: Codec, wave_BS: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Codes [K, T] of one waveform, on the CPU."""
    return codec.encode(wave_BS, dtype=dtype)[0].cpu()


def _normalized(
    real: Sequence[Agreement],
    chance: Sequence[Agreement],
    bound: Sequence[Agreement],
    speakers: Sequence[str],
) -> dict[str, Interval]:
    """Chance and bound are means over all clips: their variance is small beside the encoder's."""
    result = {}
    lows, highs = mean_agreement(chance), mean_agreement(bound)
    for kind in KINDS:
        low = getattr(lows, kind)
        room = getattr(highs, kind) - low
        if abs(room) > 1e-6:
            values = [(getattr(each, kind) - low) / room for each in real]
            result[kind] = bootstrap(values, speakers)
    return result


def _by_chance(codes: Sequence[Tensor]) -> list[Agreement]:
    """Each clip's codes against those of the clip half-way round the list."""
    return chance_agreements(codes, away=max(1, len(codes) // 2))


def _scores(values: Sequence[Agreement], groups: Sequence[str]) -> CodeScores:
    return CodeScores(
        **{kind: bootstrap([getattr(v, kind) for v in values], groups) for kind in KINDS}
    )
