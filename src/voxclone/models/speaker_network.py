"""A small speaker encoder that the recipe trains: the network of speaker losses.

Shapes: B batch, S samples, M mel bands, T frames at 50 Hz, D width.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.audio.spectrum import mel_spectrogram
from voxclone.config import Settings
from voxclone.errors import ConfigError
from voxclone.models.ctc_asr import BANDS, HOP, N_FFT, USED_BANDS, Recognizer, RecognizerConfig
from voxclone.readers import read_json
from voxclone.records import parse_record
from voxclone.release.release import mini_release
from voxclone.release.safetensors import load_tensors

SPEAKER_NETWORK_FILE = "voices.safetensors"


class SpeakerNetworkConfig(Settings):
    """Size of the trunk."""

    dim: int
    blocks: int


class SpeakerNetwork(nn.Module):
    """Waves [B, S] at 24 kHz -> unit vectors [B, 2D], close together for one speaker's clips."""

    def __init__(self, speakers: int, dim: int, blocks: int) -> None:
        super().__init__()
        self.trunk = Recognizer(RecognizerConfig(characters="a", dim=dim, blocks=blocks))
        self.centers = nn.Linear(2 * dim, speakers, bias=False)

    def features(self, wave_BS: Tensor) -> Tensor:
        """Log-mel [B, M, T] with zero mean over bands and time together: the mean of each band,
        which a recognizer removes, is half of a voice."""
        mel_BMT = mel_spectrogram(wave_BS, N_FFT, HOP, BANDS)[:, :USED_BANDS]
        log_BMT = mel_BMT.clamp(min=1e-3).log()[..., : -(-wave_BS.shape[-1] // HOP)]
        return log_BMT - log_BMT.mean(dim=(1, 2), keepdim=True)

    def forward(self, wave_BS: Tensor) -> Tensor:
        hidden_BTD = self.trunk.hidden(self.features(wave_BS)).float()
        pooled_BD = torch.cat([hidden_BTD.mean(dim=1), hidden_BTD.std(dim=1)], dim=-1)
        return F.normalize(pooled_BD, dim=-1)


def load_speaker_network(folder: Path) -> SpeakerNetwork:
    """A frozen network: `voices.safetensors` has matrices in 4 bits (two weights a byte) with a
    scale for each row, and `config.json` the size. Raises ConfigError without them."""
    path = folder / "config.json"
    config = parse_record(SpeakerNetworkConfig, read_json(path, what="The network's"), str(path))
    state = load_tensors(folder / SPEAKER_NETWORK_FILE, ConfigError)
    network = SpeakerNetwork(1, config.dim, config.blocks)
    weights = {}
    for name, weight in network.trunk.state_dict().items():
        stored = state[name]
        if weight.ndim > 1:
            stored = _dequantize(stored, state[f"{name}.scale"], weight.shape)
        weights[name] = stored.to(torch.float32)
    network.trunk.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def load_packaged_speaker_network() -> SpeakerNetwork:
    """The network that comes with the mini release."""
    return load_speaker_network(mini_release().parent / "voices")


def _dequantize(packed: Tensor, scale: Tensor, shape: torch.Size) -> Tensor:
    nibbles = torch.stack([packed & 15, packed >> 4], dim=1).flatten()[: shape.numel()]
    signed = (nibbles.to(torch.int8) + 8) % 16 - 8
    return (signed.view(shape[0], -1) * scale.float()).view(shape)
