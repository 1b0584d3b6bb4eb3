"""A small convolutional CTC speech recognizer with character output.

It stands in for Whisper where Whisper cannot be had. One instance gives the hidden states that
distillation trains a semantic stream on; another, never used for training, gives error rates.

Shapes: B batch, S samples, M mel bands, T frames at 50 Hz, D width, V characters.
"""

import unicodedata
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.audio.spectrum import mel_spectrogram
from voxclone.config import Settings
from voxclone.errors import ConfigError
from voxclone.readers import read_json
from voxclone.records import parse_record
from voxclone.release.release import mini_release
from voxclone.release.safetensors import load_tensors

N_FFT, HOP, BANDS, USED_BANDS = 640, 240, 96, 80  # the used bands end near 8 kHz
STRIDE = 2
BLANK = 0


class RecognizerConfig(Settings):
    """Size of a recognizer and its output characters; index 0 is the CTC blank."""

    characters: str
    dim: int = 160
    blocks: int = 8
    kernel: int = 15


def normalize_text(text: str) -> str:
    """Lower case with letters, apostrophes and single spaces only, as error rates compare it."""
    lowered = unicodedata.normalize("NFC", text.lower().replace("\u2019", "'"))
    kept = "".join(c if c.isalpha() or c == "'" else " " for c in lowered)
    return " ".join(kept.split())


class _Block(nn.Module):
    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 4 * dim)
        self.down = nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x_BTD: Tensor) -> Tensor:
        y_BTD = self.depthwise(x_BTD.transpose(1, 2)).transpose(1, 2)
        return x_BTD + self.dropout(self.down(F.gelu(self.up(self.norm(y_BTD)))))


class Recognizer(nn.Module):
    """Log-mel features [B, M, 2T] -> log-probabilities [B, T, V + 1]."""

    def __init__(self, config: RecognizerConfig) -> None:
        super().__init__()
        self.config = config
        self.input = nn.Conv1d(USED_BANDS, config.dim, 5, padding=2)
        self.reduce = nn.Conv1d(config.dim, config.dim, 4, stride=STRIDE, padding=1)
        self.blocks = nn.ModuleList(
            [_Block(config.dim, config.kernel) for _ in range(config.blocks)]
        )
        self.norm = nn.LayerNorm(config.dim)
        self.output = nn.Linear(config.dim, len(config.characters) + 1)

    def features(self, wave_BS: Tensor) -> Tensor:
        """Log-mel [B, M, frames at 100 Hz] of 24 kHz waves, each band with zero mean over time."""
        mel_BMT = mel_spectrogram(wave_BS, N_FFT, HOP, BANDS)[:, :USED_BANDS]
        log_BMT = mel_BMT.clamp(min=1e-4).log()[..., : -(-wave_BS.shape[-1] // HOP)]
        return log_BMT - log_BMT.mean(dim=-1, keepdim=True)

    def hidden(self, features_BMT: Tensor) -> Tensor:
        """Hidden states [B, T, D] at 50 Hz after the last block."""
        x_BDT = F.gelu(self.reduce(F.gelu(self.input(features_BMT))))
        x_BTD = x_BDT.transpose(1, 2)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        normed: Tensor = self.norm(x_BTD)
        return normed

    def forward(self, features_BMT: Tensor) -> Tensor:
        return F.log_softmax(self.output(self.hidden(features_BMT)).float(), dim=-1)

    def transcribe(self, wave_S: Tensor) -> str:
        """Greedy CTC decoding of one clip at 24 kHz."""
        with torch.no_grad():
            best_T = self(self.features(wave_S[None]))[0].argmax(dim=-1)
        collapsed = torch.unique_consecutive(best_T).tolist()
        return "".join(self.config.characters[i - 1] for i in collapsed if i != BLANK)

    def spell(self, text: str) -> list[int]:
        """CTC target indices of a normalized text; unknown characters are left out."""
        positions = {c: i + 1 for i, c in enumerate(self.config.characters)}
        return [positions[c] for c in text if c in positions]


def load_recognizer(folder: Path) -> Recognizer:
    """A frozen fp32 recognizer from `config.json` and `recognizer.safetensors` in `folder`.

    Raises ConfigError if either is absent or damaged.
    """
    values = read_json(folder / "config.json", what="The recognizer's")
    config = parse_record(RecognizerConfig, values, str(folder / "config.json"))
    state = load_tensors(folder / "recognizer.safetensors", ConfigError)
    model = Recognizer(config)
    model.load_state_dict({name: tensor.to(torch.float32) for name, tensor in state.items()})
    return model.eval().requires_grad_(False)


def load_packaged_recognizer() -> Recognizer:
    """The recognizer that comes with the mini release."""
    return load_recognizer(mini_release().parent / "recognizer")


@torch.no_grad()
def states_by_frame(recognizer: Recognizer, wave_BS: Tensor, frame_size: int) -> Tensor:
    """A recognizer's states [B, T, R, E] of waveforms [B, S]; zeros fill up the last frame."""
    per_frame = frame_size // (HOP * STRIDE)
    states_BUE = recognizer.hidden(recognizer.features(wave_BS)).float()
    missing = -states_BUE.shape[1] % per_frame
    return F.pad(states_BUE, (0, 0, 0, missing)).unflatten(1, (-1, per_frame))
