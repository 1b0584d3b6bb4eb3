"""The networks that metrics use.

Shapes: S samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from voxclone.audio.loudness import MIN_SAMPLES
from voxclone.errors import MissingExtraError
from voxclone.evaluate.progress import Track, untracked
from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.models.dnsmos import MosPredictor
from voxclone.models.speaker_encoder import SpeakerEmbedder
from voxclone.models.transcribers import Transcriber, transcribe_or_empty


@dataclass(frozen=True)
class MetricModels:
    """Speaker encoders, recognizers and a predictor of opinion scores; what is absent is not
    measured."""

    embedders: Sequence[SpeakerEmbedder] = ()
    transcribers: Sequence[Transcriber] = ()
    mos: MosPredictor | None = None


def mean_mos(
    predictor: MosPredictor | None,
    waves: Sequence[Tensor],
    speakers: Sequence[str],
    missing: dict[str, str],
    track: Track = untracked,
) -> dict[str, Interval]:
    """Mean scores over speakers by scale, of all clips [S] that are not silent.

    Empty without a predictor, and where its package is not installed (the reason is added to
    `missing`).
    """
    if predictor is None:
        return {}
    scores, owners = [], []
    for wave_S, speaker in track(list(zip(waves, speakers, strict=True)), predictor.name):
        if len(wave_S) < MIN_SAMPLES:
            continue
        try:
            scores.append(predictor.predict(wave_S))
        except MissingExtraError as error:
            missing[predictor.name] = str(error)
            return {}
        owners.append(speaker)
    scales = scores[0] if scores else ()
    return {scale: bootstrap([each[scale] for each in scores], owners) for scale in scales}


def transcripts(
    models: MetricModels, texts: Sequence[str], waves: Sequence[Tensor], track: Track = untracked
) -> dict[str, list[tuple[str, str]]]:
    """(text, transcript) of every clip [S], by transcriber."""
    clips = list(zip(texts, waves, strict=True))
    return {
        each.name: [
            (text, transcribe_or_empty(each, wave_S)) for text, wave_S in track(clips, each.name)
        ]
        for each in models.transcribers
    }
