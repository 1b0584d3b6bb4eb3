"""Training of the small recognizer: CTC on the transcripts of a corpus.

Shapes: B batch, S samples, M mel bands, T frames, V characters.
"""

import collections
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.config import Settings
from voxclone.data.corpus import Subset
from voxclone.device import autocast
from voxclone.errors import ConfigError
from voxclone.evaluate.wer import error_rate
from voxclone.models.ctc_asr import STRIDE, Recognizer, RecognizerConfig, normalize_text
from voxclone.rng import step_generator
from voxclone.spec import SAMPLING_RATE
from voxclone.train.checkpoint import TrainState
from voxclone.train.logging import Log
from voxclone.train.loop import GRAD_NORM, RunSettings
from voxclone.train.optim import OptimizerSettings, build_optimizers, set_learning_rate

CLIP = 5.0
"""The largest norm of gradients."""
DRAWN = 256
"""Clips that are drawn for a batch; it has those of similar length."""
VALIDATED = 120
MASKS, MASK_BANDS, MASK_FRAMES = 2, 12, 15
"""SpecAugment (arXiv 1904.08779): bands and frames that are left out."""


class RecognizerTraining(Settings):
    """Values of one recognizer's training. Noise is added at a level out of `noise_db`."""

    run: RunSettings
    optimizer: OptimizerSettings
    dim: int = 160
    blocks: int = 8
    batch_seconds: float = 60.0
    noise_db: tuple[float, float] = (-80.0, -45.0)
    speaker_balance: float = 0.3
    min_character_count: int = 30


@dataclass
class RecognizerTask:
    """A recognizer in training; see `loop.Task`."""

    settings: RecognizerTraining
    train: Subset
    valid: Subset
    model: Recognizer
    state: TrainState

    @classmethod
    def create(
        cls, settings: RecognizerTraining, train: Subset, valid: Subset, device: torch.device
    ) -> "RecognizerTask":
        """A fresh recognizer for the characters of the training transcripts."""
        characters = characters_of(train, settings.min_character_count)
        config = RecognizerConfig(characters=characters, dim=settings.dim, blocks=settings.blocks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.run.seed)
            model = Recognizer(config).to(device)
        state = TrainState({"recognizer": model}, build_optimizers(model, settings.optimizer))
        state.values["recognizer"] = config.model_dump()
        return cls(settings, train, valid, model, state)

    def train_step(self, step: int) -> dict[str, Tensor]:
        settings = self.settings
        generator = step_generator(settings.run.seed, step)
        device = self.model.output.weight.device
        features_BMT, frames_B, targets = self._batch(self._draw(generator), generator)
        self.model.train()
        with dropout_from(generator), autocast(device, enabled=settings.run.autocast):
            log_probs_BTV = self.model(features_BMT.to(device))
        lengths_B = torch.tensor([len(t) for t in targets])
        loss = F.ctc_loss(
            log_probs_BTV.transpose(0, 1), torch.cat(targets), frames_B, lengths_B,
            zero_infinity=True,
        )  # fmt: skip
        optimizer = self.state.optimizers["adamw"]
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        set_learning_rate([optimizer], step, settings.run.steps, settings.optimizer.warmup_steps)
        if norm.isfinite():
            optimizer.step()
        return {"loss/ctc": loss, GRAD_NORM: norm}

    def validate(self, step: int, log: Log) -> dict[str, float]:
        """Error rates on held-out clips."""
        self.model.eval()
        corpus, device = self.train.corpus, self.model.output.weight.device
        pairs = []
        for index in self.valid.indices[:VALIDATED]:
            text = normalize_text(corpus.clips[index].text or "")
            pairs.append((text, self.model.transcribe(corpus.wave(index).to(device))))
        words = [(text.split(), transcript.split()) for text, transcript in pairs]
        return {"valid/cer": error_rate(pairs), "valid/wer": error_rate(words)}

    def _draw(self, generator: torch.Generator) -> list[int]:
        """Clips of similar length that together last about `batch_seconds`."""
        length = self.train.corpus.length
        weights = self.train.weights(self.settings.speaker_balance)
        drawn = torch.multinomial(weights, DRAWN, replacement=True, generator=generator).tolist()
        indices = sorted((self.train.indices[i] for i in drawn), key=length)
        limit = int(self.settings.batch_seconds * SAMPLING_RATE)
        start = int(torch.randint(len(indices), (1,), generator=generator))
        chosen: list[int] = []
        for index in indices[start:] + indices[:start][::-1]:
            longest = max(length(i) for i in [*chosen, index])
            if chosen and longest * (len(chosen) + 1) > limit:
                break
            chosen.append(index)
        return chosen

    def _batch(
        self, indices: list[int], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Features [B, M, T] with noise and masks, output frames [B], and targets."""
        corpus, (low, high) = self.train.corpus, self.settings.noise_db
        features, targets = [], []
        for index in indices:
            wave_S = corpus.wave(index)
            level = 10 ** ((low + (high - low) * float(torch.rand(1, generator=generator))) / 20)
            wave_S = wave_S + level * torch.randn(wave_S.shape, generator=generator)
            mel_MT = self.model.features(wave_S[None].to(self.model.output.weight.device))[0].cpu()
            for axis, most in ((0, MASK_BANDS), (1, MASK_FRAMES)) * MASKS:
                width = int(torch.randint(most + 1, (1,), generator=generator))
                spare = max(1, mel_MT.shape[axis] - width)
                begin = int(torch.randint(spare, (1,), generator=generator))
                masked = torch.arange(begin, begin + width).clamp(max=mel_MT.shape[axis] - 1)
                mel_MT = mel_MT.index_fill(axis, masked, 0.0)
            features.append(mel_MT)
            text = normalize_text(corpus.clips[index].text or "")
            targets.append(torch.tensor(self.model.spell(text), dtype=torch.long))
        longest = max(mel_MT.shape[1] for mel_MT in features)
        padded_BMT = torch.stack([F.pad(mel, (0, longest - mel.shape[1])) for mel in features])
        return padded_BMT, torch.tensor([mel.shape[1] // STRIDE for mel in features]), targets


def characters_of(subset: Subset, least: int) -> str:
    """The characters that occur at least `least` times in the normalized transcripts. Raises
    ConfigError if there are none."""
    counts: collections.Counter[str] = collections.Counter()
    for index in subset.indices:
        counts.update(normalize_text(subset.corpus.clips[index].text or ""))
    found = "".join(sorted(c for c, count in counts.items() if count >= least))
    if not found:
        raise ConfigError("The training clips have no transcripts to learn from.")
    return found


@contextmanager
def dropout_from(generator: torch.Generator) -> Iterator[None]:
    """Within, dropout draws from a seed that the generator gives; the global generators, which it
    knows alone, are put back."""
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        yield
