"""Limits of what may be asked of the model; torch is not needed."""

import math
from typing import Literal

from voxclone.errors import UsageError

Weights = Literal["int8", "int4"]
"""How matrices may be packed (`tts.quantized`)."""
MAX_SEED = 2**62
MAX_CFG = 20.0


def check_seed(seed: int) -> int:
    """The seed, if it is one. Raises UsageError."""
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"The seed is {seed}: it must be a whole number from 0 to 2^62.")
    return seed


def check_weights(weights: str | None) -> Weights | None:
    """How matrices are packed, if at all. Raises UsageError."""
    match weights:
        case None | "int8" | "int4":
            return weights
    raise UsageError(f"The weights are {weights!r}: they may be int8 or int4.")


def check_cfg(cfg: float) -> float:
    """The guidance, if the model can be guided so much. Raises UsageError."""
    if not (math.isfinite(cfg) and 0 <= cfg <= MAX_CFG):
        raise UsageError(f"The guidance (cfg) is {cfg:g}: it must be from 0 to {MAX_CFG:g}.")
    return cfg
