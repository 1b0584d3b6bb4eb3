"""How good speech sounds, as listeners would say: DNSMOS (arXiv 2110.01763), 1 to 5.

The networks are those of the package speechmos. They hear 9 s at 16 kHz; a shorter clip is repeated
and a longer one is heard in steps of a second. Made for noise suppression, they judge noise and
distortion and not likeness.

Shapes: S samples.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from torch import Tensor

from voxclone.errors import MissingExtraError
from voxclone.evaluate.cloned import LEAST
from voxclone.evaluate.signal import MODEL_RATE, to_16k
from voxclone.evaluate.statistics import Interval, bootstrap


class Listener(Protocol):
    """Rates a clip on scales of 1 to 5."""

    name: str

    def rate(self, wave_S: Tensor) -> dict[str, float]:
        """Ratings by scale of a clip at 24 kHz."""
        ...


class DnsmosListener:
    """DNSMOS P.835 (`overall`, `speech`, `background`) and P.808 (`p808`)."""

    name = "dnsmos"

    def rate(self, wave_S: Tensor) -> dict[str, float]:
        """Raises MissingExtraError without speechmos, onnxruntime or librosa."""
        try:
            from speechmos import dnsmos
        except ImportError as error:
            raise MissingExtraError(error.name or "speechmos", "eval", "DNSMOS") from None
        samples = to_16k(wave_S[None])[0].clamp(-1, 1).cpu().numpy()
        made = dnsmos.run(samples, MODEL_RATE)
        return {
            "overall": float(made["ovrl_mos"]),
            "speech": float(made["sig_mos"]),
            "background": float(made["bak_mos"]),
            "p808": float(made["p808_mos"]),
        }


def rate_all(
    listener: Listener, waves: Iterable[Tensor], speakers: Iterable[str], missing: dict[str, str]
) -> dict[str, Interval]:
    """Mean ratings over speakers of all clips that are no silence; empty, with the reason in
    `missing`, where the listener cannot be had."""
    rated: list[Mapping[str, float]] = []
    owners = []
    for wave_S, speaker in zip(waves, speakers, strict=True):
        if len(wave_S) < LEAST:
            continue
        try:
            rated.append(listener.rate(wave_S))
        except MissingExtraError as error:
            missing[listener.name] = str(error)
            return {}
        owners.append(speaker)
    if not rated:
        return {}
    return {scale: bootstrap([each[scale] for each in rated], owners) for scale in rated[0]}
