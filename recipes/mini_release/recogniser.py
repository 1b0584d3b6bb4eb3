"""Training of the small recogniser: CTC on the transcripts of a corpus.

Shapes: B batch, S samples, M mel bands, T frames.
"""

import collections
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.mini_release.training import OptimiserSettings, RunSettings, apply_gradients, learners
from voxclone.config import Settings
from voxclone.data.corpus import Corpus, Subset
from voxclone.device import pick_device
from voxclone.errors import ConfigError
from voxclone.evaluate.wer import error_rate
from voxclone.models.ctc_asr import STRIDE, Recognizer, RecognizerConfig, normalize_text
from voxclone.rng import step_generator
from voxclone.spec import SAMPLING_RATE
from voxclone.train.checkpoint import TrainState
from voxclone.train.logging import Log
from voxclone.train.optim import build_optimizers

SAMPLES_PER_FRAME = 480


class RecogniserTraining(Settings):
    """Values of one recogniser's training."""

    run: RunSettings
    optimiser: OptimiserSettings = OptimiserSettings(lr=2e-3, betas=(0.9, 0.98), clip=5.0)
    dim: int = 160
    blocks: int = 8
    batch_seconds: float = 60.0
    noise_db: tuple[float, float] = (-60.0, -25.0)
    mask_bands: int = 12
    mask_frames: int = 15
    masks: int = 2
    evenness: float = 0.3
    min_character_count: int = 30


def characters_of(subset: Subset, least: int) -> str:
    """The characters that occur at least `least` times in the normalised transcripts."""
    counts: collections.Counter[str] = collections.Counter()
    for index in subset.indices:
        counts.update(normalize_text(subset.corpus.clips[index].text or ""))
    return "".join(sorted(c for c, count in counts.items() if count >= least))


@dataclass
class RecogniserTask:
    """A recogniser, its optimiser and its corpus; see `loop.Task`."""

    settings: RecogniserTraining
    corpus: Corpus
    train: Subset
    valid: Subset
    model: Recognizer
    state: TrainState

    @classmethod
    def create(
        cls, settings: RecogniserTraining, corpus: Corpus, train: Subset, valid: Subset
    ) -> "RecogniserTask":
        """A fresh recogniser for the characters of the training transcripts."""
        characters = characters_of(train, settings.min_character_count)
        if not characters:
            raise ConfigError("The training clips have no transcripts to learn from.")
        config = RecognizerConfig(characters=characters, dim=settings.dim, blocks=settings.blocks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.run.seed)
            model = Recognizer(config).to(pick_device(settings.run.device))
        state = TrainState({"recogniser": model}, build_optimizers(model, settings.optimiser))
        state.values["recogniser"] = config.model_dump()
        return cls(settings, corpus, train, valid, model, state)

    def train_step(self, step: int) -> dict[str, Tensor]:
        settings = self.settings
        generator = step_generator(settings.run.seed, step)
        indices = self._draw(generator)
        features, frames, targets = self._batch(indices, generator)
        self.model.train()
        device = features.device
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=settings.run.autocast)
        with torch.random.fork_rng(), autocast:  # dropout draws from the global generator
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
            log_probs_BTV = self.model(features)
        lengths = torch.tensor([len(t) for t in targets])
        loss = F.ctc_loss(
            log_probs_BTV.transpose(0, 1), torch.cat(targets), frames, lengths, zero_infinity=True
        )
        loss.backward()
        norm = apply_gradients(learners(self.state), settings.optimiser, step, settings.run.steps)
        return {"loss/ctc": loss, "other/grad_norm": norm}

    def validate(self, step: int, log: Log) -> dict[str, float]:
        self.model.eval()
        corpus = self.corpus
        pairs = []
        for index in self.valid.indices[:120]:
            text = normalize_text(corpus.clips[index].text or "")
            pairs.append((text, self.model.transcribe(corpus.wave(index))))
        words = [(text.split(), transcript.split()) for text, transcript in pairs]
        return {"valid/cer": error_rate(pairs), "valid/wer": error_rate(words)}

    def _draw(self, generator: torch.Generator) -> list[int]:
        """Clips of similar length that together last about `batch_seconds`."""
        weights = self.train.weights(self.settings.evenness)
        drawn = torch.multinomial(weights, 256, replacement=True, generator=generator).tolist()
        indices = sorted((self.train.indices[i] for i in drawn), key=self.corpus.length)
        limit = int(self.settings.batch_seconds * SAMPLING_RATE)
        start = int(torch.randint(len(indices), (1,), generator=generator))
        chosen: list[int] = []
        for index in indices[start:] + indices[:start][::-1]:
            longest = max(self.corpus.length(i) for i in [*chosen, index])
            if chosen and longest * (len(chosen) + 1) > limit:
                break
            chosen.append(index)
        return chosen

    def _batch(
        self, indices: list[int], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        settings = self.settings
        features, frames, targets = [], [], []
        for index in indices:
            wave_S = self.corpus.wave(index)
            low, high = settings.noise_db
            level = 10 ** ((low + (high - low) * float(torch.rand(1, generator=generator))) / 20)
            wave_S = wave_S + 0.1 * level * torch.randn(wave_S.shape, generator=generator)
            mel_MT = self.model.features(wave_S[None])[0]
            for _ in range(settings.masks):
                for axis, most in ((0, settings.mask_bands), (1, settings.mask_frames)):
                    width = int(torch.randint(most + 1, (1,), generator=generator))
                    spare = max(1, mel_MT.shape[axis] - width)
                    begin = int(torch.randint(spare, (1,), generator=generator))
                    mel_MT = mel_MT.index_fill(
                        axis,
                        torch.arange(begin, begin + width).clamp(max=mel_MT.shape[axis] - 1),
                        0.0,
                    )
            features.append(mel_MT)
            frames.append(mel_MT.shape[1] // STRIDE)
            text = normalize_text(self.corpus.clips[index].text or "")
            targets.append(torch.tensor(self.model.spell(text), dtype=torch.long))
        longest = max(f.shape[1] for f in features)
        padded = torch.stack([F.pad(f, (0, longest - f.shape[1])) for f in features])
        return padded, torch.tensor(frames), targets
