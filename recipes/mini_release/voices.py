"""Training of the network that tells the training speakers apart.

Shapes: B batch, S samples, P speakers, N clips.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.mini_release.listeners import SCALE
from recipes.mini_release.training import OptimiserSettings, RunSettings, apply_gradients, learners
from voxclone.config import Settings
from voxclone.data.corpus import Corpus, Subset
from voxclone.device import pick_device
from voxclone.models.speaker_network import SpeakerNetwork
from voxclone.rng import step_generator
from voxclone.spec import SAMPLING_RATE
from voxclone.train.checkpoint import TrainState
from voxclone.train.logging import Log
from voxclone.train.optim import build_optimizers

MARGIN = 0.1


class VoicesTraining(Settings):
    """Values of the training of a `SpeakerNetwork`."""

    run: RunSettings
    optimiser: OptimiserSettings = OptimiserSettings(lr=2e-3, betas=(0.9, 0.98), clip=5.0)
    dim: int = 96
    blocks: int = 5
    batch: int = 32
    seconds: float = 2.0
    evenness: float = 0.8
    noise_db: tuple[float, float] = (-80.0, -35.0)


@dataclass
class VoicesTask:
    """Telling the speakers of a corpus apart; see `loop.Task`."""

    settings: VoicesTraining
    corpus: Corpus
    train: Subset
    valid: Subset
    speakers: list[str]
    model: SpeakerNetwork
    state: TrainState

    @classmethod
    def create(
        cls, settings: VoicesTraining, corpus: Corpus, train: Subset, valid: Subset
    ) -> "VoicesTask":
        """A fresh network for the speakers of `train`."""
        speakers = sorted(train.by_speaker())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.run.seed)
            model = SpeakerNetwork(len(speakers), settings.dim, settings.blocks)
        model.to(pick_device(settings.run.device))
        state = TrainState({"voices": model}, build_optimizers(model, settings.optimiser))
        state.values["speakers"] = len(speakers)
        return cls(settings, corpus, train, valid, speakers, model, state)

    def train_step(self, step: int) -> dict[str, Tensor]:
        """Additive-margin softmax over speakers (arXiv 1801.05599) of short noisy crops."""
        settings = self.settings
        generator = step_generator(settings.run.seed, step)
        if not hasattr(self, "_weights_N"):
            self._weights_N = self.train.weights(settings.evenness)
        samples = int(settings.seconds * SAMPLING_RATE)
        drawn = self.train.crops(settings.batch, samples, generator, self._weights_N)
        low, high = settings.noise_db
        level_B1 = low + (high - low) * torch.rand(settings.batch, 1, generator=generator)
        noise_BS = torch.randn(drawn.wave_BS.shape, generator=generator) * 10 ** (level_B1 / 20)
        device = self.model.centres.weight.device
        names = [self.corpus.clips[index].speaker for index in drawn.indices]
        target_B = torch.tensor([self.speakers.index(name) for name in names], device=device)
        self.model.train()
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=settings.run.autocast)
        with torch.random.fork_rng(), autocast:  # dropout draws from the global generator
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
            vector_BD = self.model((drawn.wave_BS + noise_BS).to(device))
        cosine_BP = vector_BD @ F.normalize(self.model.centres.weight, dim=-1).T
        margin_BP = F.one_hot(target_B, len(self.speakers)) * MARGIN
        loss = F.cross_entropy(SCALE * (cosine_BP - margin_BP), target_B)
        loss.backward()
        norm = apply_gradients(learners(self.state), settings.optimiser, step, settings.run.steps)
        hit = (cosine_BP.argmax(dim=-1) == target_B).float().mean()
        return {"loss/voices": loss, "voices/hit": hit, "other/grad_norm": norm}

    @torch.no_grad()
    def validate(self, step: int, log: Log) -> dict[str, float]:
        """Mean cosine of two clips of one unseen speaker, and of clips of two."""
        self.model.eval()
        device = self.model.centres.weight.device
        vectors, names = [], []
        for name, indices in self.valid.by_speaker().items():
            for index in indices[:4]:
                wave_S = self.corpus.wave(index, 0, min(self.corpus.length(index), 96000))
                vectors.append(self.model(wave_S[None].to(device))[0].cpu())
                names.append(name)
        cosine_NN = torch.stack(vectors) @ torch.stack(vectors).T
        same_NN = torch.tensor([[a == b for b in names] for a in names])
        own_NN = same_NN & ~torch.eye(len(names), dtype=torch.bool)
        return {
            "valid/same": float(cosine_NN[own_NN].mean()),
            "valid/others": float(cosine_NN[~same_NN].mean()),
        }
