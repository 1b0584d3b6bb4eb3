"""The withheld-encoder benchmark: how near is an encoder to the one that was put aside?

All figures are of clips of speakers that nobody trained on. Code agreement means little alone:
beside it stand *chance* (the codes of another clip), and the *re-encoding bound* (the oracle on its
own decoded codes), which says how well posed the question is.

Shapes: S samples, K code books, T frames, D width.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.evaluate.codes import Agreement, agreement
from voxclone.voice.rows import voice_rows


@dataclass(frozen=True)
class EncoderScores:
    """Means over clips. `real` compares on the recordings, `decoded` on the oracle's own decoded
    codes; `transfer` is the share of the bound's semantic agreement that is reached on real
    speech; `row_cosine` is between voice rows; `extreme` the share of levels at either end."""

    real: Agreement
    decoded: Agreement
    row_cosine: float
    extreme: float
    codes_in_use: int


@dataclass(frozen=True)
class Truth:
    """What the oracle says of one clip: samples [S], codes [K, T], and its decoded codes [S']."""

    wave_S: Tensor
    codes_KT: Tensor
    decoded_S: Tensor


@torch.inference_mode()
def truths(oracle: Codec, waves: Sequence[Tensor]) -> list[Truth]:
    """Encode clips with the oracle and decode what it gives."""
    result = []
    for wave_S in waves:
        codes_KT = oracle.encode(wave_S[None])[0]
        result.append(Truth(wave_S, codes_KT, oracle.decode(codes_KT[None])[0]))
    return result


@torch.inference_mode()
def score_encoder(
    codec: Codec, truth: Sequence[Truth], table_VD: Tensor, offsets: Sequence[int]
) -> EncoderScores:
    """Scores of the encoder of `codec` (the oracle itself gives the bound under `decoded`)."""
    real, decoded, cosines, levels, used = [], [], [], [], []
    for item in truth:
        codes_KT = codec.encode(item.wave_S[None])[0]
        real.append(agreement(item.codes_KT, codes_KT))
        again_KT = codec.encode(item.decoded_S[None])[0]
        decoded.append(agreement(item.codes_KT, again_KT))
        rows = [
            voice_rows(codes, table_VD, offsets)[:-1].float() for codes in (item.codes_KT, codes_KT)
        ]
        cosines.append(float(F.cosine_similarity(rows[0], rows[1], dim=-1).mean()))
        levels.append(codes_KT[1:].flatten())
        used.append(codes_KT[0])
    every = torch.cat(levels)
    top = codec.quantizer.levels - 1
    return EncoderScores(
        real=mean_agreement(real),
        decoded=mean_agreement(decoded),
        row_cosine=sum(cosines) / len(cosines),
        extreme=float(((every == 0) | (every == top)).float().mean()),
        codes_in_use=len(torch.cat(used).unique()),
    )


def chance(truth: Sequence[Truth]) -> Agreement:
    """Agreement of each clip's codes with those of the next one."""
    return mean_agreement(
        [
            agreement(a.codes_KT, b.codes_KT)
            for a, b in zip(truth, [*truth[1:], truth[0]], strict=True)
        ]
    )


def mean_agreement(values: Sequence[Agreement]) -> Agreement:
    """Mean of each figure over clips."""
    rows = [asdict(value) for value in values]
    return Agreement(**{key: sum(row[key] for row in rows) / len(rows) for key in rows[0]})
