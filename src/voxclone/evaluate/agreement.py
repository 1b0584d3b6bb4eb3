"""How far two encoders agree on the codes of one clip.

Shapes: K codebooks, T frames.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch import Tensor


@dataclass(frozen=True)
class Agreement:
    """Shares of equal codes: `semantic`, and acoustic levels `exact` and `within_one`; and the mean
    absolute difference of levels."""

    semantic: float
    exact: float
    within_one: float
    level_error: float


def agreement(truth_KT: Tensor, estimate_KT: Tensor) -> Agreement:
    """Compare the codes of one clip, over the frames that both have."""
    frames = min(truth_KT.shape[1], estimate_KT.shape[1])
    truth_KT, estimate_KT = truth_KT[:, :frames], estimate_KT[:, :frames]
    difference = (truth_KT[1:] - estimate_KT[1:]).abs().float()
    return Agreement(
        semantic=float((truth_KT[0] == estimate_KT[0]).float().mean()),
        exact=float((difference == 0).float().mean()),
        within_one=float((difference <= 1).float().mean()),
        level_error=float(difference.mean()),
    )


def mean_agreement(values: Sequence[Agreement]) -> Agreement:
    """Mean of each metric over clips."""
    rows = [asdict(value) for value in values]
    return Agreement(**{key: sum(row[key] for row in rows) / len(rows) for key in rows[0]})


def agreements(truths: Sequence[Tensor], estimates: Sequence[Tensor]) -> list[Agreement]:
    """Agreement of each of some clips' codes [K, T] with its estimate."""
    return [agreement(a_KT, b_KT) for a_KT, b_KT in zip(truths, estimates, strict=True)]


def chance_agreements(codes: Sequence[Tensor], away: int = 1) -> list[Agreement]:
    """Agreement of each clip's codes [K, T] with those of the clip `away` positions further on."""
    return agreements(codes, [*codes[away:], *codes[:away]])
