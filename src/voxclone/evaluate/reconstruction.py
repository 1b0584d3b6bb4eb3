"""How well a codec reconstructs speech: one table for any codec.

The metrics are those of arXiv 2603.25551, Table 2; `signal`, `similarity` and `wer` define them.
The paper states no settings. Compare with its rows only after measuring a public codec here:
`MimiReconstructor` is for that.

Shapes: S samples.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from voxclone.audio.loudness import normalize_loudness
from voxclone.codec.model import Codec
from voxclone.errors import AudioError, MissingExtraError
from voxclone.evaluate.metric_models import MetricModels, mean_mos, transcripts
from voxclone.evaluate.progress import Track, untracked
from voxclone.evaluate.signal import evaluate_pair
from voxclone.evaluate.speechset import SpeechSet
from voxclone.evaluate.statistics import Interval, bootstrap_known
from voxclone.evaluate.wer import character_error_rate, word_error_rate
from voxclone.models.pretrained import load_pretrained
from voxclone.models.speaker_encoder import SpeakerEmbedder, speaker_similarity

SCHEMA = "voxclone.reconstruction/2"


class Reconstructor(Protocol):
    """A codec with 24 kHz input and as many samples of output."""

    name: str
    kbps: float

    def reconstruct(self, wave_S: Tensor) -> Tensor:
        """The samples [S] after encoding and decoding."""
        ...


class VoxtralReconstructor:
    """A release's codec with its encoder."""

    def __init__(self, codec: Codec, name: str) -> None:
        """Raises ReleaseError for a codec without an encoder."""
        codec.require_encoder()
        self.codec = codec
        self.name = name
        config = codec.config
        sizes = [config.semantic_codebook_size] + [codec.quantizer.levels] * config.acoustic_dim
        self.kbps = float(torch.tensor(sizes).log2().sum()) * codec.frame_rate / 1000

    @torch.inference_mode()
    def reconstruct(self, wave_S: Tensor) -> Tensor:
        codes_BKT = self.codec.encode(wave_S[None].to(self.codec.device))
        return self.codec.decode(codes_BKT)[0, : len(wave_S)].cpu()


class MimiReconstructor:
    """Mimi through transformers with its first codebooks (8, 16 and 32 in the paper)."""

    def __init__(
        self,
        source: str = "kyutai/mimi",
        codebooks: int = 32,
        device: str | torch.device = "cpu",
    ) -> None:
        """Raises MissingExtraError without transformers, VoxcloneError if it does not load."""
        self.model = load_pretrained("MimiModel", source, "Comparing with Mimi").to(device)
        self.codebooks = codebooks
        self.name = f"mimi-{codebooks}"
        self.kbps = 11 * codebooks * float(self.model.config.frame_rate) / 1000

    @torch.inference_mode()
    def reconstruct(self, wave_S: Tensor) -> Tensor:
        wave_BCS = wave_S[None, None].to(self.model.device)
        codes = self.model.encode(wave_BCS, num_quantizers=self.codebooks).audio_codes
        decoded: Tensor = self.model.decode(codes).audio_values[0, 0]
        return decoded[: len(wave_S)].cpu()


@dataclass(frozen=True)
class ReconstructionScores:
    """Means over speakers with intervals; None where not measured, for the reason in `missing`.

    Error rates are over all clips with a text together. `recordings_*` is the same metric of the
    recordings themselves, the best that decoded speech could reach."""

    codec: str
    kbps: float
    clips: int
    speakers: int
    seconds: float
    mel_distance: Interval | None
    stft_distance: Interval | None
    level_difference: Interval | None
    pesq: Interval | None
    estoi: Interval | None
    similarity: dict[str, Interval]
    cer: dict[str, float]
    wer: dict[str, float]
    recordings_cer: dict[str, float]
    recordings_wer: dict[str, float]
    dnsmos: dict[str, Interval]
    recordings_dnsmos: dict[str, Interval]
    missing: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """JSON values with their schema."""
        return {"schema": SCHEMA} | asdict(self)


def evaluate_codec(
    codec: Reconstructor,
    speech: SpeechSet,
    models: MetricModels,
    *,
    track: Track = untracked,
) -> ReconstructionScores:
    """Reconstruct every clip and compare it with the recording."""
    recordings = [each.wave_S for each in speech.utterances]
    speakers = [each.speaker for each in speech.utterances]
    decoded = [codec.reconstruct(wave_S) for wave_S in track(recordings, "reconstructing")]
    pairs = list(zip(recordings, decoded, strict=True))
    signal = [evaluate_pair(a, b) for a, b in track(pairs, "signal metrics")]
    missing = {name: reason for each in signal for name, reason in each.missing.items()}
    similarity = {
        embedder.name: mean
        for embedder in models.embedders
        if (mean := _mean_similarity(embedder, pairs, speakers, missing, track)) is not None
    }
    with_text = [i for i, each in enumerate(speech.utterances) if each.clip.text]
    texts = [speech.utterances[i].clip.text or "" for i in with_text]
    own, true = (
        transcripts(models, texts, [waves[i] for i in with_text], track) if texts else {}
        for waves in (decoded, recordings)
    )
    return ReconstructionScores(
        codec=codec.name,
        kbps=codec.kbps,
        clips=len(speech.utterances),
        speakers=len(speech.by_speaker()),
        seconds=speech.seconds,
        **{
            name: bootstrap_known([getattr(each, name) for each in signal], speakers)
            for name in ("mel_distance", "stft_distance", "level_difference", "pesq", "estoi")
        },
        similarity=similarity,
        cer={name: character_error_rate(each) for name, each in own.items()},
        wer={name: word_error_rate(each) for name, each in own.items()},
        recordings_cer={name: character_error_rate(each) for name, each in true.items()},
        recordings_wer={name: word_error_rate(each) for name, each in true.items()},
        dnsmos=mean_mos(models.mos, decoded, speakers, missing, track),
        recordings_dnsmos=mean_mos(models.mos, recordings, speakers, missing, track),
        missing=missing,
    )


def _mean_similarity(
    embedder: SpeakerEmbedder,
    pairs: Sequence[tuple[Tensor, Tensor]],
    speakers: Sequence[str],
    missing: dict[str, str],
    track: Track,
) -> Interval | None:
    """Similarity of decoded speech to its own recording."""
    values: list[float | None] = []
    for a_S, b_S in track(pairs, embedder.name):
        try:
            values.append(
                speaker_similarity(embedder, normalize_loudness(a_S), normalize_loudness(b_S))
            )
        except (AudioError, MissingExtraError) as error:
            values.append(None)
            missing[embedder.name] = str(error)
    return bootstrap_known(values, speakers)
