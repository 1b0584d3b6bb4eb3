"""Speaker encoders and speech recognizers by name, as commands and configs give them."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from voxclone.errors import UsageError
from voxclone.models import speaker_encoder, transcribers
from voxclone.models.ctc_asr import load_packaged_recognizer
from voxclone.models.speaker_encoder import SpeakerEmbedder
from voxclone.models.speaker_network import load_packaged_speaker_network
from voxclone.models.transcribers import Transcriber

EMBEDDERS: dict[str, Callable[[], SpeakerEmbedder]] = {
    "ge2e": speaker_encoder.Ge2eEmbedder.load,
    "ecapa": speaker_encoder.EcapaEmbedder,
    "wavlm": speaker_encoder.WavLmEmbedder,
    "mini": lambda: PackagedEmbedder(),
}
TRANSCRIBERS: dict[str, Callable[[], Transcriber]] = {
    "mini": lambda: transcribers.CharacterTranscriber(load_packaged_recognizer()),
    "pocketsphinx": transcribers.PocketsphinxTranscriber,
    "whisper": transcribers.WhisperTranscriber,
}


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


def pick(known: Mapping[str, Callable[[], Any]], name: str, where: str) -> Any:
    """The network of a name. Raises UsageError, with `where` it was named, for an unknown one."""
    if name not in known:
        raise UsageError(f"{where} takes {', '.join(known)}, not {name!r}.")
    return known[name]()
