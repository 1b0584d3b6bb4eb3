"""How far decoded speech is from real speech: can a small classifier tell them apart?

Shapes: B batch, S samples, M mel bands, T frames.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.audio.spectrum import mel_spectrogram


def gap_accuracy(
    real: Sequence[Tensor], decoded: Sequence[Tensor], *, steps: int = 150, seed: int = 0
) -> float:
    """Balanced accuracy of a small convolutional classifier of 0.64 s of log-mel: trained on the
    even clips, tested on the odd ones. 0.5 means that it cannot tell; the pairs must be aligned."""
    features = [[_features(wave) for wave in waves] for waves in (real, decoded)]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv1d(80, 32, 5), nn.ReLU(), nn.Conv1d(32, 32, 5), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 1),
        )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    train = [i for i in range(len(real)) if i % 2 == 0]
    for _ in range(steps):
        crops, labels = [], []
        for _ in range(16):
            index = train[int(torch.randint(len(train), (1,), generator=generator))]
            for label in (0, 1):
                crops.append(_crop(features[label][index], generator))
                labels.append(float(label))
        loss = F.binary_cross_entropy_with_logits(
            model(torch.stack(crops))[:, 0], torch.tensor(labels)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    right = total = 0
    with torch.no_grad():
        for index in range(1, len(real), 2):
            for label in (0, 1):
                for _ in range(4):
                    crop = _crop(features[label][index], generator)
                    right += int((model(crop[None])[0, 0] > 0).item() == bool(label))
                    total += 1
    return right / max(1, total)


def _features(wave_S: Tensor) -> Tensor:
    mel_MT = mel_spectrogram(wave_S[None], 1024, 240, 80)[0].clamp(min=1e-4).log()
    return mel_MT - mel_MT.mean()


def _crop(mel_MT: Tensor, generator: torch.Generator, frames: int = 64) -> Tensor:
    spare = max(0, mel_MT.shape[1] - frames)
    start = int(torch.randint(spare + 1, (1,), generator=generator))
    return F.pad(mel_MT[:, start : start + frames], (0, max(0, frames - mel_MT.shape[1])))
