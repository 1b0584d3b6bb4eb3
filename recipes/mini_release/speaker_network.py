"""The network that tells the training speakers apart: its training, and its file.

Shapes: B batch, S samples, P speakers, D width, N clips.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from recipes.mini_release.recognizer import CLIP, dropout_from
from voxclone.config import Settings
from voxclone.data.corpus import Subset
from voxclone.device import autocast
from voxclone.models.speaker_network import SPEAKER_NETWORK_FILE, SpeakerNetwork
from voxclone.rng import step_generator
from voxclone.spec import SAMPLING_RATE
from voxclone.train.checkpoint import TrainState
from voxclone.train.logging import Log
from voxclone.train.loop import GRAD_NORM, RunSettings
from voxclone.train.optim import OptimizerSettings, build_optimizers, set_learning_rate

MARGIN, SCALE = 0.1, 20.0
VALIDATED_CLIPS, VALIDATED_SECONDS = 4, 4
MAX_CODE = 7  # of a signed 4-bit weight


class SpeakerNetworkTraining(Settings):
    """Values of the training of a `SpeakerNetwork`."""

    run: RunSettings
    optimizer: OptimizerSettings
    dim: int = 96
    blocks: int = 5
    batch: int = 32
    seconds: float = 2.0
    speaker_balance: float = 0.8
    noise_db: tuple[float, float] = (-80.0, -35.0)


@dataclass
class SpeakerNetworkTask:
    """Telling the speakers of a corpus apart; see `loop.Task`."""

    settings: SpeakerNetworkTraining
    train: Subset
    valid: Subset
    speakers: list[str]
    model: SpeakerNetwork
    state: TrainState

    @classmethod
    def create(
        cls, settings: SpeakerNetworkTraining, train: Subset, valid: Subset, device: torch.device
    ) -> "SpeakerNetworkTask":
        """A fresh network for the speakers of `train`."""
        speakers = sorted(train.by_speaker())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.run.seed)
            model = SpeakerNetwork(len(speakers), settings.dim, settings.blocks).to(device)
        state = TrainState({"speaker_network": model}, build_optimizers(model, settings.optimizer))
        state.values["speakers"] = len(speakers)
        return cls(settings, train, valid, speakers, model, state)

    def train_step(self, step: int) -> dict[str, Tensor]:
        """Additive-margin softmax over speakers (arXiv 1801.05599) of short noisy crops."""
        settings = self.settings
        generator = step_generator(settings.run.seed, step)
        samples = int(settings.seconds * SAMPLING_RATE)
        weights_N = self.train.weights(settings.speaker_balance)
        drawn = self.train.crops(settings.batch, samples, generator, weights_N)
        low, high = settings.noise_db
        level_B1 = low + (high - low) * torch.rand(settings.batch, 1, generator=generator)
        noise_BS = torch.randn(drawn.wave_BS.shape, generator=generator) * 10 ** (level_B1 / 20)
        device = self.model.centers.weight.device
        names = [self.train.corpus.clips[index].speaker for index in drawn.indices]
        target_B = torch.tensor([self.speakers.index(name) for name in names], device=device)
        self.model.train()
        with dropout_from(generator), autocast(device, enabled=settings.run.autocast):
            vector_BD = self.model((drawn.wave_BS + noise_BS).to(device))
        cosine_BP = vector_BD @ F.normalize(self.model.centers.weight, dim=-1).T
        margin_BP = F.one_hot(target_B, len(self.speakers)) * MARGIN
        loss = F.cross_entropy(SCALE * (cosine_BP - margin_BP), target_B)
        optimizer = self.state.optimizers["adamw"]
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        set_learning_rate([optimizer], step, settings.run.steps, settings.optimizer.warmup_steps)
        if norm.isfinite():
            optimizer.step()
        hit = (cosine_BP.argmax(dim=-1) == target_B).float().mean()
        return {"loss/speakers": loss, "speakers/accuracy": hit, GRAD_NORM: norm}

    @torch.no_grad()
    def validate(self, step: int, log: Log) -> dict[str, float]:
        """Mean cosine of two clips of one speaker, and of clips of two."""
        self.model.eval()
        corpus, device = self.train.corpus, self.model.centers.weight.device
        vectors, names = [], []
        for name, indices in self.valid.by_speaker().items():
            for index in indices[:VALIDATED_CLIPS]:
                samples = min(corpus.length(index), VALIDATED_SECONDS * SAMPLING_RATE)
                wave_S = corpus.wave(index, 0, samples)
                vectors.append(self.model(wave_S[None].to(device))[0].cpu())
                names.append(name)
        own, other = pair_means(torch.stack(vectors), torch.stack(vectors), names)
        return {"valid/same": own, "valid/others": other}


def pair_means(a_NE: Tensor, b_NE: Tensor, names: list[str]) -> tuple[float, float]:
    """Mean cosine of a clip of `a` with other clips of its speaker in `b`, and with those of other
    speakers."""
    cosine_NN = a_NE @ b_NE.T
    same_NN = torch.tensor([[x == y for y in names] for x in names])
    own_NN = same_NN & ~torch.eye(len(names), dtype=torch.bool)
    return float(cosine_NN[own_NN].mean()), float(cosine_NN[~same_NN].mean())


def save_speaker_network(network: SpeakerNetwork, folder: Path) -> None:
    """Write a network for `load_speaker_network`: matrices in 4 bits with a scale for each row.

    The class vectors of the training speakers are left out: inference does not need them, and they
    are people's voices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state: dict[str, Tensor] = {}
    for name, weight in network.trunk.state_dict().items():
        if weight.ndim == 1:
            state[name] = weight.to(torch.bfloat16)
        else:
            state[name], state[f"{name}.scale"] = _quantize(weight)
    save_file(state, folder / SPEAKER_NETWORK_FILE)
    size = {"dim": network.trunk.config.dim, "blocks": network.trunk.config.blocks}
    (folder / "config.json").write_text(json.dumps(size, indent=1) + "\n", encoding="utf-8")


def _quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Two signed 4-bit weights a byte (uint8, flat), and the scale [rows, 1] of each row."""
    rows = weight.flatten(1)
    scale = (rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-8) / MAX_CODE).to(torch.bfloat16)
    codes = (rows / scale.float()).round().clamp(-MAX_CODE, MAX_CODE).to(torch.int8)
    nibbles = codes.view(torch.uint8) & 15
    pairs = F.pad(nibbles.flatten(), (0, nibbles.numel() % 2)).view(-1, 2)
    return pairs[:, 0] | pairs[:, 1] << 4, scale
