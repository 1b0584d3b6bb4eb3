"""An encoder against what is known of the true one.

Presets are always known: decode their codes, encode, compare. Where the true encoder was kept (the
mini release's oracle), every clip of every speaker is known: the withheld-encoder benchmark.
Agreement means little alone, so it is also given *normalised*: 0 is chance (another clip's codes),
1 is the re-encoding bound (the oracle on its own decoded codes).

Shapes: S samples, K code books, T frames, N rows, D width.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.evaluate.agreement import Agreement, agreement
from voxclone.evaluate.speechset import SpeechSet, Utterance
from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.release.release import Release, load_table
from voxclone.release.tensors import codebook_offsets
from voxclone.voice.embedding import embed_codes
from voxclone.voice.presets import preset_codes

SCHEMA = "voxclone.encoder/1"
KINDS = ("semantic", "exact", "within_one", "level_error")


@dataclass(frozen=True)
class CodeScores:
    """Agreement of codes, means over speakers with intervals."""

    semantic: Interval
    exact: Interval
    within_one: Interval
    level_error: Interval


@dataclass(frozen=True)
class AgainstOracle:
    """On real speech (`real`) and on the oracle's decoded codes (`decoded`), beside `chance` and
    the oracle's own `bound`. Normalised scores are of `real`; `row_cosine` is between voice rows;
    `bf16` compares both encoders as the runtimes compute them; `extreme` is the share of the
    encoder's levels at either end, `codes_in_use` counts its semantic codes, both on real
    speech."""

    real: CodeScores
    decoded: CodeScores
    bf16: CodeScores
    extreme: Interval
    codes_in_use: int
    chance: CodeScores
    bound: CodeScores
    normalised: dict[str, Interval]
    row_cosine: Interval


@dataclass(frozen=True)
class EncoderReport:
    """`presets` against `presets_by_chance` need no oracle; `oracle` is None without one."""

    encoder: str
    presets: CodeScores
    presets_by_chance: CodeScores
    oracle: AgainstOracle | None
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
    track: Callable[[Iterable[Utterance]], Iterable[Utterance]] = iter,
) -> EncoderReport:
    """Score the encoder of `codec` on the presets, and on `speech` where there is an `oracle`."""
    presets = preset_codes(release).codes
    names = sorted(presets)
    again = [codec.encode(codec.decode(presets[each][None]))[0] for each in names]
    truth = [presets[each] for each in names]
    return EncoderReport(
        encoder=name,
        presets=_scores([agreement(a, b) for a, b in zip(truth, again, strict=True)], names),
        presets_by_chance=_scores(_by_chance(truth), names),
        oracle=None if oracle is None else _against(release, codec, speech, oracle, track),
        clips=len(speech.utterances),
        speakers=len(speech.by_speaker()),
        seconds=speech.seconds,
    )


def _against(
    release: Release,
    codec: Codec,
    speech: SpeechSet,
    oracle: Codec,
    track: Callable[[Iterable[Utterance]], Iterable[Utterance]],
) -> AgainstOracle:
    table_VD, offsets = load_table(release), codebook_offsets(release.params)
    truth: list[Tensor] = []
    real, decoded, drifted, bound, cosines, extreme, speakers = [], [], [], [], [], [], []
    used: set[int] = set()
    half = torch.bfloat16
    for each in track(speech.utterances):
        wave_BS = each.wave_S[None]
        true_KT, own_KT = oracle.encode(wave_BS)[0], codec.encode(wave_BS)[0]
        made_BS = oracle.decode(true_KT[None])
        truth.append(true_KT)
        real.append(agreement(true_KT, own_KT))
        decoded.append(agreement(true_KT, codec.encode(made_BS)[0]))
        bound.append(agreement(true_KT, oracle.encode(made_BS)[0]))
        drifted.append(
            agreement(oracle.encode(wave_BS, dtype=half)[0], codec.encode(wave_BS, dtype=half)[0])
        )
        rows = [
            embed_codes(codes_KT, table_VD, offsets)[:-1].float() for codes_KT in (true_KT, own_KT)
        ]
        cosines.append(float(F.cosine_similarity(rows[0], rows[1], dim=-1).mean()))
        top = codec.quantizer.levels - 1
        extreme.append(float(((own_KT[1:] == 0) | (own_KT[1:] == top)).float().mean()))
        used |= set(own_KT[0].tolist())
        speakers.append(each.speaker)
    chance = _by_chance(truth)
    return AgainstOracle(
        real=_scores(real, speakers),
        decoded=_scores(decoded, speakers),
        bf16=_scores(drifted, speakers),
        extreme=bootstrap(extreme, speakers),
        codes_in_use=len(used),
        chance=_scores(chance, speakers),
        bound=_scores(bound, speakers),
        normalised=_normalised(real, chance, bound, speakers),
        row_cosine=bootstrap(cosines, speakers),
    )


def _normalised(
    real: Sequence[Agreement],
    chance: Sequence[Agreement],
    bound: Sequence[Agreement],
    speakers: Sequence[str],
) -> dict[str, Interval]:
    """Chance and bound are taken over all clips: their own spread is small beside the encoder's."""
    result = {}
    for kind in KINDS:
        low = _mean(chance, kind)
        room = _mean(bound, kind) - low
        if abs(room) > 1e-6:
            values = [(getattr(each, kind) - low) / room for each in real]
            result[kind] = bootstrap(values, speakers)
    return result


def _by_chance(codes: Sequence[Tensor]) -> list[Agreement]:
    """Each clip's codes against those of the clip half-way round the list."""
    away = max(1, len(codes) // 2)
    others = [*codes[away:], *codes[:away]]
    return [agreement(a, b) for a, b in zip(codes, others, strict=True)]


def _scores(values: Sequence[Agreement], groups: Sequence[str]) -> CodeScores:
    return CodeScores(
        **{kind: bootstrap([getattr(v, kind) for v in values], groups) for kind in KINDS}
    )


def _mean(values: Sequence[Agreement], kind: str) -> float:
    return sum(getattr(each, kind) for each in values) / len(values)
