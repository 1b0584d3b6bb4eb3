"""How well a codec gives speech back: one table for any codec.

The metrics of arXiv 2603.25551, Table 2 (definitions in `signal`, `likeness`, `transcribe`). The
paper gives none of their settings, so its rows can be compared with only once the rows of a public
codec have been measured with these: that is what `MimiReconstructor` is for.

Shapes: S samples.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from voxclone.audio.loudness import normalize_loudness
from voxclone.codec.model import Codec
from voxclone.errors import AudioError, MissingExtraError
from voxclone.evaluate.mos import rate_all
from voxclone.evaluate.signal import evaluate_pair
from voxclone.evaluate.speechset import SpeechSet
from voxclone.evaluate.statistics import Interval, bootstrap
from voxclone.evaluate.wer import word_error
from voxclone.models.dnsmos import MosPredictor
from voxclone.models.pretrained import load_pretrained
from voxclone.models.speaker_encoder import SpeakerEmbedder, speaker_similarity
from voxclone.models.transcribers import Transcriber, transcribe_or_empty

SCHEMA = "voxclone.reconstruction/1"


class Reconstructor(Protocol):
    """A codec as this table sees it: 24 kHz in, as many samples of 24 kHz out."""

    name: str
    kbps: float

    def reconstruct(self, wave_S: Tensor) -> Tensor:
        """The samples [S] after encoding and decoding."""
        ...


class VoxtralReconstructor:
    """A release's codec; its encoder must be there."""

    def __init__(self, codec: Codec, name: str) -> None:
        codec.require_encoder()
        self.codec = codec
        self.name = name
        config = codec.config
        bits = torch.tensor(
            [config.semantic_codebook_size, *[codec.quantizer.levels] * config.acoustic_dim]
        )
        self.kbps = float(bits.log2().sum()) * codec.frame_rate / 1000

    @torch.inference_mode()
    def reconstruct(self, wave_S: Tensor) -> Tensor:
        return self.codec.decode(self.codec.encode(wave_S[None]))[0][: len(wave_S)]


class MimiReconstructor:
    """Mimi through transformers with its first `books` code books (8, 16 and 32 in the paper)."""

    def __init__(self, source: str = "kyutai/mimi", books: int = 32, device: str = "cpu") -> None:
        """Raises MissingExtraError without transformers, VoxcloneError if it does not load."""
        self.model = load_pretrained("MimiModel", source, "Comparing with Mimi").to(device)
        self.books = books
        self.name = f"mimi-{books}"
        self.kbps = 11 * books * float(self.model.config.frame_rate) / 1000

    @torch.inference_mode()
    def reconstruct(self, wave_S: Tensor) -> Tensor:
        given = wave_S[None, None].to(self.model.device)
        codes = self.model.encode(given, num_quantizers=self.books).audio_codes
        decoded: Tensor = self.model.decode(codes).audio_values[0, 0].cpu()
        return decoded[: len(wave_S)]


@dataclass(frozen=True)
class ReconstructionScores:
    """Means over speakers with intervals; what was not measured is None, and `missing` says why.
    Word errors are over all clips with a text together: of decoded speech, and of the recordings
    themselves, which is the least that could be reached. `opinion` is by scale of a listener, and
    likewise."""

    codec: str
    kbps: float
    clips: int
    speakers: int
    seconds: float
    mel_distance: Interval
    stft_distance: Interval
    level_difference: Interval | None
    pesq: Interval | None
    estoi: Interval | None
    likeness: dict[str, Interval]
    cer: dict[str, float]
    wer: dict[str, float]
    recordings_cer: dict[str, float]
    recordings_wer: dict[str, float]
    opinion: dict[str, Interval]
    recordings_opinion: dict[str, Interval]
    missing: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """JSON values with their schema."""
        return {"schema": SCHEMA} | asdict(self)


def evaluate_codec(
    codec: Reconstructor,
    speech: SpeechSet,
    embedders: Sequence[SpeakerEmbedder],
    transcribers: Sequence[Transcriber],
    *,
    listener: MosPredictor | None = None,
    track: Callable[[Iterable[Any], str], Iterable[Any]] = lambda items, what: items,
) -> ReconstructionScores:
    """Send every clip through a codec and compare."""
    values: dict[str, list[float]] = {}
    owners: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    said: dict[str, list[tuple[str, str]]] = {each.name: [] for each in transcribers}
    recorded: dict[str, list[tuple[str, str]]] = {each.name: [] for each in transcribers}
    made: list[Tensor] = []

    def note(name: str, speaker: str, value: float | None) -> None:
        if value is not None:
            values.setdefault(name, []).append(value)
            owners.setdefault(name, []).append(speaker)

    for each in track(speech.utterances, "measuring"):
        decoded_S = codec.reconstruct(each.wave_S)
        made.append(decoded_S)
        scores = evaluate_pair(each.wave_S, decoded_S)
        missing |= scores.missing
        for name in ("mel_distance", "stft_distance", "level_difference", "pesq", "estoi"):
            note(name, each.speaker, getattr(scores, name))
        for embedder in embedders:
            note(embedder.name, each.speaker, _alike(embedder, each.wave_S, decoded_S, missing))
        for transcriber in transcribers if each.clip.text else ():
            text = each.clip.text or ""
            said[transcriber.name].append((text, transcribe_or_empty(transcriber, decoded_S)))
            recorded[transcriber.name].append((text, transcribe_or_empty(transcriber, each.wave_S)))

    def interval(name: str) -> Interval | None:
        return bootstrap(values[name], owners[name]) if name in values else None

    def opinion(waves: Iterable[Tensor]) -> dict[str, Interval]:
        speakers = [each.speaker for each in speech.utterances]
        if listener is None:
            return {}
        return rate_all(listener, track(waves, "rating"), speakers, missing)

    mel, stft = interval("mel_distance"), interval("stft_distance")
    assert mel is not None and stft is not None  # every clip has them
    alike = {each.name: interval(each.name) for each in embedders}
    return ReconstructionScores(
        codec=codec.name,
        kbps=codec.kbps,
        clips=len(speech.utterances),
        speakers=len(speech.by_speaker()),
        seconds=speech.seconds,
        mel_distance=mel,
        stft_distance=stft,
        level_difference=interval("level_difference"),
        pesq=interval("pesq"),
        estoi=interval("estoi"),
        likeness={name: value for name, value in alike.items() if value is not None},
        cer={name: word_error(pairs, characters=True) for name, pairs in said.items() if pairs},
        wer={name: word_error(pairs) for name, pairs in said.items() if pairs},
        recordings_cer={
            name: word_error(pairs, characters=True) for name, pairs in recorded.items() if pairs
        },
        recordings_wer={name: word_error(pairs) for name, pairs in recorded.items() if pairs},
        opinion=opinion(made),
        recordings_opinion=opinion(each.wave_S for each in speech.utterances),
        missing=missing,
    )


def _alike(
    embedder: SpeakerEmbedder, wave_S: Tensor, decoded_S: Tensor, missing: dict[str, str]
) -> float | None:
    try:
        return speaker_similarity(
            embedder, normalize_loudness(wave_S), normalize_loudness(decoded_S)
        )
    except (AudioError, MissingExtraError) as error:
        missing[embedder.name] = str(error)
        return None
