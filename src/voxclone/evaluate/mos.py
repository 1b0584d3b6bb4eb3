"""Mean ratings of a network that stands for listeners.

Shapes: S samples.
"""

from collections.abc import Iterable, Mapping

from torch import Tensor

from voxclone.audio.loudness import MIN_SAMPLES
from voxclone.errors import MissingExtraError
from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.models.dnsmos import MosPredictor


def rate_all(
    listener: MosPredictor,
    waves: Iterable[Tensor],
    speakers: Iterable[str],
    missing: dict[str, str],
) -> dict[str, Interval]:
    """Mean ratings over speakers of all clips that are no silence; empty, with the reason in
    `missing`, where the listener cannot be had."""
    rated: list[Mapping[str, float]] = []
    owners = []
    for wave_S, speaker in zip(waves, speakers, strict=True):
        if len(wave_S) < MIN_SAMPLES:
            continue
        try:
            rated.append(listener.predict(wave_S))
        except MissingExtraError as error:
            missing[listener.name] = str(error)
            return {}
        owners.append(speaker)
    if not rated:
        return {}
    return {scale: bootstrap([each[scale] for each in rated], owners) for scale in rated[0]}
