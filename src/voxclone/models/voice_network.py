"""A small network that tells speakers apart: who trains with it hears whose voice it is.

Shapes: B batch, S samples, M mel bands, T frames at 50 Hz, D width.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from voxclone.audio.spectrum import mel_spectrogram
from voxclone.config import Settings, parse_settings
from voxclone.errors import ConfigError
from voxclone.models.ctc_asr import BANDS, HOP, N_FFT, USED_BANDS, Recogniser, RecogniserConfig

VOICES_FILE = "voices.safetensors"


STEPS = 7  # to each side of 0, in four bits


class VoiceNetwork(nn.Module):
    """Waveforms [B, S] -> unit vectors [B, 2D] in which one speaker's clips are near each other."""

    def __init__(self, speakers: int, dim: int, blocks: int) -> None:
        super().__init__()
        self.trunk = Recogniser(RecogniserConfig(characters="a", dim=dim, blocks=blocks))
        self.centres = nn.Linear(2 * dim, speakers, bias=False)

    @property
    def size(self) -> dict[str, int]:
        """What `load_voices` needs to know."""
        return {"dim": self.trunk.config.dim, "blocks": self.trunk.config.blocks}

    def features(self, wave_BS: Tensor) -> Tensor:
        """Log-mel [B, M, T]; a recogniser takes each band's mean away, but that is half a voice."""
        mel_BMT = mel_spectrogram(wave_BS, N_FFT, HOP, BANDS)[:, :USED_BANDS]
        log_BMT = mel_BMT.clamp(min=1e-3).log()[..., : -(-wave_BS.shape[-1] // HOP)]
        return log_BMT - log_BMT.mean(dim=(1, 2), keepdim=True)

    def forward(self, wave_BS: Tensor) -> Tensor:
        hidden_BTD = self.trunk.hidden(self.features(wave_BS)).float()
        pooled_BD = torch.cat([hidden_BTD.mean(dim=1), hidden_BTD.std(dim=1)], dim=-1)
        return F.normalize(pooled_BD, dim=-1)


class VoicesConfig(Settings):
    dim: int
    blocks: int


def save_voices(network: VoiceNetwork, folder: Path) -> None:
    """Write a network for `load_voices`, its matrices in four bits and a scale a row, without the
    vectors of the speakers that it was trained on: nobody needs those to hear, and they are
    people's voices."""
    folder.mkdir(parents=True, exist_ok=True)
    state: dict[str, Tensor] = {}
    for name, weight in network.trunk.state_dict().items():
        if weight.ndim == 1:
            state[name] = weight.to(torch.bfloat16)
            continue
        rows = weight.flatten(1)
        scale = (rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-8) / STEPS).to(torch.bfloat16)
        steps = (rows / scale.float()).round().clamp(-STEPS, STEPS).to(torch.int8).view(
            torch.uint8
        ) & 15
        pairs = F.pad(steps.flatten(), (0, steps.numel() % 2)).view(-1, 2)
        state[name], state[f"{name}.scale"] = pairs[:, 0] | pairs[:, 1] << 4, scale
    save_file(state, folder / VOICES_FILE)
    text = json.dumps(network.size, indent=1) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def load_voices(folder: Path) -> VoiceNetwork:
    """A frozen network from what `save_voices` wrote. Raises ConfigError if it is not there."""
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        state = load_file(folder / VOICES_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"There is no network of voices in {folder}: {error}.") from None
    config = parse_settings(VoicesConfig, values, str(folder))
    network = VoiceNetwork(1, config.dim, config.blocks)
    found = {}
    for name, weight in network.trunk.state_dict().items():
        stored = state[name]
        if weight.ndim > 1:
            steps = torch.stack([stored & 15, stored >> 4], dim=1).flatten()[: weight.numel()]
            signed = (steps.to(torch.int8) + 8) % 16 - 8
            scale = state[f"{name}.scale"].float()
            stored = (signed.view(len(weight), -1) * scale).view_as(weight)
        found[name] = stored.to(torch.float32)
    network.trunk.load_state_dict(found)
    return network.eval().requires_grad_(False)
