"""The networks of metrics by the names that commands take, each with a cache."""

from collections.abc import Callable, Mapping
from typing import Any

from voxclone.errors import UsageError
from voxclone.evaluate import cache
from voxclone.evaluate.cache import CachedEmbedder, CachedMosPredictor, CachedTranscriber
from voxclone.evaluate.metric_models import MetricModels
from voxclone.models import speaker_encoder, transcribers
from voxclone.models.ctc_asr import load_packaged_recognizer
from voxclone.models.dnsmos import Dnsmos

EMBEDDERS: Mapping[str, Callable[[], Any]] = {
    "ge2e": speaker_encoder.Ge2eEmbedder.load,
    "ecapa": speaker_encoder.EcapaEmbedder,
    "wavlm": speaker_encoder.WavLmEmbedder,
}
TRANSCRIBERS: Mapping[str, Callable[[], Any]] = {
    "mini": lambda: transcribers.CharacterTranscriber(load_packaged_recognizer()),
    "pocketsphinx": transcribers.PocketsphinxTranscriber,
    "whisper": transcribers.WhisperTranscriber,
}


def make_models(
    embedders: list[str] | None, recognizers: list[str] | None, dnsmos: bool
) -> MetricModels:
    """Networks by name: `ge2e` and `mini`, which are packaged, where none are named. Raises
    UsageError for an unknown name."""
    folder = cache.default_folder()
    return MetricModels(
        embedders=[
            CachedEmbedder(_pick(EMBEDDERS, name, "--embedder"), folder)
            for name in embedders or ["ge2e"]
        ],
        transcribers=[
            CachedTranscriber(_pick(TRANSCRIBERS, name, "--transcriber"), folder)
            for name in recognizers or ["mini"]
        ],
        mos=CachedMosPredictor(Dnsmos(), folder) if dnsmos else None,
    )


def _pick(known: Mapping[str, Callable[[], Any]], name: str, option: str) -> Any:
    if name not in known:
        raise UsageError(f"{option} takes {', '.join(known)}, not {name!r}.")
    return known[name]()
