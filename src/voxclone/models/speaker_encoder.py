"""Speaker encoders: embeddings whose cosine is the similarity of two voices.

GE2E is packaged: network and front end are Resemblyzer's (Resemble AI, Apache-2.0; Wan et al.,
arXiv 1710.10467), with weights in `assets/`. It is small and offline, and its cosines lie close
together (measured: 0.75 for one speaker, 0.50 for two, 0.60 for two of one sex recorded alike).
So a report shows same-speaker and cross-speaker pairs of the same recordings. A network that was a
training loss measures nothing afterwards: report another family.

Shapes: B batch, S samples at 24 kHz, R samples at 16 kHz, W windows of 30 ms, T frames of 10 ms,
M mel bands, P partial utterances, E embedding.
"""

import functools
import importlib
import math
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.audio.loudness import check_wave, normalize_loudness
from voxclone.audio.resample import MODEL_RATE, to_16k
from voxclone.audio.spectrum import mel_matrix
from voxclone.errors import AudioError, MissingExtraError
from voxclone.models.pretrained import clip_at_16k, load_pretrained
from voxclone.spec import SAMPLING_RATE

N_FFT, HOP, BANDS = 400, 160, 40
PARTIAL_FRAMES, PARTIAL_STEP = 160, 77  # 1.6 s each, 1.3 of them begin in a second
MIN_COVERAGE = 0.75
TARGET_RMS = 10 ** (-30 / 20)  # quieter clips are raised to -30 dBFS
PAUSE_WINDOW, PAUSE_DEPTH_DB = 480, 30.0  # a window this far below the loudest one is a pause
SMOOTHING, MARGIN = 8, 3  # windows averaged, and windows kept on both sides of speech
SAME_SPEAKER, OTHER_SPEAKERS = 0.75, 0.50  # mean cosines of recordings by the packaged network
MIN_SECONDS = 0.4  # the layers of WavLM's x-vectors need 15 frames of 20 ms, ECAPA's less


class SpeakerEmbedder(Protocol):
    """A speaker encoder; `name` stands in reports."""

    name: str

    def embed(self, wave_S: Tensor) -> Tensor:
        """Unit vector [E] on the CPU of one clip at 24 kHz. Raises AudioError (empty, silent)."""
        ...


def speaker_similarity(embedder: SpeakerEmbedder, a_S: Tensor, b_S: Tensor) -> float:
    """Cosine between the embeddings of two clips at 24 kHz. Raises AudioError."""
    return float(embedder.embed(a_S) @ embedder.embed(b_S))


def clip_embedding(wave_S: Tensor) -> Tensor:
    """Unit vector [E] of a clip at 24 kHz by the packaged network, at the loudness at which clips
    are compared. Raises AudioError."""
    return Ge2eEmbedder.load().embed(normalize_loudness(wave_S))


def clip_similarity(a_S: Tensor, b_S: Tensor) -> float:
    """Cosine of two clips by `clip_embedding`: near `SAME_SPEAKER` for two recordings of one
    speaker, near `OTHER_SPEAKERS` for those of two. Raises AudioError."""
    return float(clip_embedding(a_S) @ clip_embedding(b_S))


class Ge2eEmbedder(nn.Module):
    """Resemblyzer's network: three LSTM layers over 40 mel bands, embeddings of 256 values >= 0.

    Equal to the package 0.1.4 but for pauses, which are found by level instead of webrtcvad (see
    `trim_pauses`), and for weights kept in float16. It depends on loudness: a clip 10 dB quieter
    has a cosine of 0.94 with itself (0.89 at worst), so compare clips of one level.
    """

    name = "ge2e"

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    @staticmethod
    def load(device: str = "cpu") -> "Ge2eEmbedder":
        """The trained network with frozen weights, cached for each device."""
        return _load_ge2e(device)

    def embed(self, wave_S: Tensor) -> Tensor:
        """Unit vector [256] on the CPU of one clip at 24 kHz, long pauses left out.

        Any length above zero works; under about 1 s the embedding is poor. Raises AudioError.
        """
        with torch.no_grad():
            wave_R = preprocess_wave(wave_S.to(self.linear.weight.device))
            return self._embed_16k(wave_R[None])[0].cpu()

    def embed_batch(self, wave_BS: Tensor) -> Tensor:
        """Unit vectors [B, 256] of clips of one length at 24 kHz; gradients reach the samples.

        For losses: as `embed`, but pauses stay, since clips of a batch keep one length. Autocast is
        off within. A silent clip gives a finite vector without meaning.
        """
        with torch.autocast(wave_BS.device.type, enabled=False):
            return self._embed_16k(_normalized_16k(wave_BS))

    def embed_windows(self, wave_BR: Tensor) -> Tensor:
        """Unit vectors [B, 256] of windows of 1.6 s at 16 kHz, cut from `preprocess_wave`."""
        mel_BTM = mel_power(wave_BR)[:, :PARTIAL_FRAMES]
        _, (hidden, _) = self.lstm(mel_BTM)
        return F.normalize(F.relu(self.linear(hidden[-1])), dim=-1)

    def _embed_16k(self, wave_BR: Tensor) -> Tensor:
        starts = partial_starts(wave_BR.shape[-1])
        needed = (starts[-1] + PARTIAL_FRAMES) * HOP
        mel_BTM = mel_power(F.pad(wave_BR, (0, max(0, needed - wave_BR.shape[-1]))))
        partials = [mel_BTM[:, start : start + PARTIAL_FRAMES] for start in starts]
        _, (hidden, _) = self.lstm(torch.stack(partials, dim=1).flatten(0, 1))
        partial_BPE = F.relu(self.linear(hidden[-1])).reshape(len(wave_BR), len(starts), -1)
        return F.normalize(F.normalize(partial_BPE, dim=-1).mean(dim=1), dim=-1)


@functools.cache
def _load_ge2e(device: str) -> Ge2eEmbedder:
    from safetensors.torch import load

    asset = resources.files("voxclone.models") / "assets" / "ge2e.safetensors"
    embedder = Ge2eEmbedder()
    weights = load(asset.read_bytes())
    embedder.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    # Left in training mode: nothing in it depends on the mode (no dropout, no statistics), and
    # cuDNN has no backward pass for an LSTM in evaluation mode.
    return embedder.requires_grad_(False).to(device)


def _normalized_16k(wave_BS: Tensor) -> Tensor:
    """[B, R] at 16 kHz, clips under -30 dBFS RMS (pauses included) raised to it."""
    wave_BR = to_16k(wave_BS.float())
    rms_B1 = wave_BR.square().mean(dim=-1, keepdim=True).clamp(min=1e-12).sqrt()
    return wave_BR * (TARGET_RMS / rms_B1).clamp(min=1)


def preprocess_wave(wave_S: Tensor) -> Tensor:
    """The input of the GE2E network for one clip at 24 kHz: [R] at 16 kHz without long pauses.

    Raises AudioError.
    """
    check_wave(wave_S)
    return trim_pauses(_normalized_16k(wave_S[None])[0])


def trim_pauses(wave_R: Tensor) -> Tensor:
    """One clip at 16 kHz without its long pauses; the whole clip if nothing would be left.

    Resemblyzer's smoothing (windows of 30 ms, average over 8, 3 kept on each side) over a simpler
    decision than its webrtcvad: a window is speech if its power is within 30 dB of the loudest
    one. A second of silence inside a clip lowers the similarity of the clip with itself to 0.7 in
    the worst of 72 cases, and with trimming to 0.87.
    """
    windows = len(wave_R) // PAUSE_WINDOW
    if not windows:
        return wave_R
    wave_WR = wave_R[: windows * PAUSE_WINDOW].reshape(windows, PAUSE_WINDOW)
    power_W = wave_WR.detach().square().mean(dim=1)
    speech_W = (power_W > power_W.max() * 10 ** (-PAUSE_DEPTH_DB / 10)).float()
    padded_1W = F.pad(speech_W[None], ((SMOOTHING - 1) // 2, SMOOTHING // 2))
    smooth_1W = (F.avg_pool1d(padded_1W, SMOOTHING, stride=1) > 0.5).float()
    kept_W = F.max_pool1d(smooth_1W, 2 * MARGIN + 1, stride=1, padding=MARGIN)[0] > 0
    return wave_WR[kept_W].flatten() if bool(kept_W.any()) else wave_R


def partial_starts(samples: int) -> list[int]:
    """First frames of the partial utterances of a clip of `samples` at 16 kHz.

    Resemblyzer's rule: a step of 77 frames until the clip is covered. The last one, padded with
    zeros, is kept if at least three quarters of it are sound. There is always one.
    """
    frames = -(-(samples + 1) // HOP)
    starts = list(range(0, max(1, frames - PARTIAL_FRAMES + PARTIAL_STEP + 1), PARTIAL_STEP))
    coverage = (samples / HOP - starts[-1]) / PARTIAL_FRAMES
    return starts[:-1] if coverage < MIN_COVERAGE and len(starts) > 1 else starts


def mel_power(wave_BR: Tensor) -> Tensor:
    """Mel powers [B, T, 40] at 16 kHz, not logarithmic, equal to librosa's `melspectrogram`:
    Hann window of 25 ms, Slaney scale, each filter scaled to unit area in Hz."""
    window = torch.hann_window(N_FFT, device=wave_BR.device)
    spectrum = torch.stft(
        wave_BR, N_FFT, HOP, window=window, center=True, pad_mode="constant", return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()
    return power.transpose(1, 2) @ _area_filters(wave_BR.device)


@functools.lru_cache(maxsize=8)
def _area_filters(device: torch.device) -> Tensor:
    """Filters [bins, M]: the triangles of height 1, each over its area (half its base in Hz)."""
    top = 15 + 27 * math.log(MODEL_RATE / 2000) / math.log(6.4)
    mels = torch.linspace(0, top, BANDS + 2, dtype=torch.float64)
    edges = torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    area = ((edges[2:] - edges[:-2]) / 2).float().to(device)
    return (mel_matrix(N_FFT, BANDS, MODEL_RATE, device) / area[:, None]).T


class WavLmEmbedder:
    """WavLM with an x-vector head (transformers); not the WavLM-large of seed-tts-eval."""

    name = "wavlm-sv"

    def __init__(self, source: str = "microsoft/wavlm-base-plus-sv") -> None:
        """`source` is a directory or a hub name. Raises MissingExtraError, VoxcloneError."""
        self._features = load_pretrained("AutoFeatureExtractor", source, "WavLM similarity")
        self._model = load_pretrained("WavLMForXVector", source, "WavLM similarity")
        self._model.eval().requires_grad_(False)

    def embed(self, wave_S: Tensor) -> Tensor:
        """Unit vector [E] on the CPU of one clip at 24 kHz of 0.4 s or more. Raises AudioError."""
        wave_R = _long_enough_16k(wave_S, "WavLM")
        inputs = self._features(wave_R.numpy(), sampling_rate=MODEL_RATE, return_tensors="pt")
        with torch.no_grad():
            embedding_BE = self._model(inputs["input_values"]).embeddings
        return F.normalize(embedding_BE[0].float(), dim=-1).cpu()


class EcapaEmbedder:
    """SpeechBrain's ECAPA-TDNN (192 values), the family that the Voxtral paper reports."""

    name = "ecapa"

    def __init__(self, source: str = "speechbrain/spkrec-ecapa-voxceleb") -> None:
        """`source` is a trusted directory or hub name: its YAML can run code.

        Raises MissingExtraError without speechbrain (which needs torchaudio too).
        """
        try:
            classifiers = importlib.import_module("speechbrain.inference.classifiers")
        except ImportError:
            raise MissingExtraError("speechbrain", "speakers", "ECAPA similarity") from None
        # A copied directory still names the hub as the place of its weights.
        overrides = {"pretrained_path": source} if Path(source).is_dir() else {}
        self._model: Any = classifiers.EncoderClassifier.from_hparams(
            source=source, overrides=overrides, run_opts={"device": "cpu"}
        )

    def embed(self, wave_S: Tensor) -> Tensor:
        """Unit vector [192] on the CPU of one clip at 24 kHz of 0.4 s or more.

        Raises AudioError.
        """
        wave_R = _long_enough_16k(wave_S, "ECAPA")
        with torch.no_grad():
            embedding_B1E = self._model.encode_batch(wave_R[None])
        return F.normalize(embedding_B1E[0, 0].float(), dim=-1).cpu()


def _long_enough_16k(wave_S: Tensor, network: str) -> Tensor:
    """The clip [R] at 16 kHz on the CPU, checked."""
    wave_R = clip_at_16k(wave_S)
    seconds = len(wave_S) / SAMPLING_RATE
    if seconds < MIN_SECONDS:
        raise AudioError(f"{network} needs {MIN_SECONDS} s of sound; the clip has {seconds:.2f} s.")
    return wave_R
