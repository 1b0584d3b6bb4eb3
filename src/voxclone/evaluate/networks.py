"""The networks of metrics by the names that commands take, each with a cache."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from voxclone.errors import UsageError
from voxclone.evaluate import cache
from voxclone.evaluate.cache import CachedEmbedder, CachedMosPredictor, CachedTranscriber
from voxclone.evaluate.metric_models import MetricModels
from voxclone.models import speaker_encoder, transcribers
from voxclone.models.ctc_asr import load_packaged_recognizer
from voxclone.models.dnsmos import Dnsmos
from voxclone.models.speaker_network import load_packaged_speaker_network


class PackagedEmbedder:
    """The packaged speaker network, by which the packaged encoder was trained: its similarity is
    evidence for an adapter, and none for that encoder."""

    name = "mini"

    def __init__(self) -> None:
        self.network = load_packaged_speaker_network()

    def embed(self, wave_S: Tensor) -> Tensor:
        """Unit vector [E] of a clip [S]."""
        vector_E: Tensor = self.network(wave_S[None])[0]
        return vector_E


EMBEDDERS: Mapping[str, Callable[[], Any]] = {
    "ge2e": speaker_encoder.Ge2eEmbedder.load,
    "ecapa": speaker_encoder.EcapaEmbedder,
    "wavlm": speaker_encoder.WavLmEmbedder,
    "mini": PackagedEmbedder,
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
            CachedEmbedder(pick(EMBEDDERS, name, "--embedder"), folder)
            for name in embedders or ["ge2e"]
        ],
        transcribers=[
            CachedTranscriber(pick(TRANSCRIBERS, name, "--transcriber"), folder)
            for name in recognizers or ["mini"]
        ],
        mos=CachedMosPredictor(Dnsmos(), folder) if dnsmos else None,
    )


def pick(known: Mapping[str, Callable[[], Any]], name: str, option: str) -> Any:
    """The network of a name. Raises UsageError, with the option that named it, for an unknown
    one."""
    if name not in known:
        raise UsageError(f"{option} takes {', '.join(known)}, not {name!r}.")
    return known[name]()
