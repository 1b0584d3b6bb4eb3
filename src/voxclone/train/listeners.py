"""Frozen listeners: decoded speech shall sound to them like the recording.

Losses on spectra weigh what is loud. A network that was trained to tell sounds or speakers apart
weighs what tells them apart, so the distance of its states is asked to be small, layer by layer
(a "perceptual" or deep feature loss). Two listeners are used: the recogniser that teaches the
semantic stream, and a small network that tells the training speakers apart. Neither is among the
judges that figures are taken from.

Shapes: B batch, S samples, M mel bands, T frames at 50 Hz, D width, P speakers, L layers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from voxclone.audio.spectrum import mel_spectrogram
from voxclone.config import Settings, parse_settings
from voxclone.data.corpus import Corpus, Subset, step_generator
from voxclone.errors import ConfigError
from voxclone.models.ctc_asr import BANDS, HOP, N_FFT, USED_BANDS, Recogniser, RecogniserConfig
from voxclone.train.log import Log
from voxclone.train.run import (
    OptimiserSettings,
    RunSettings,
    apply_gradients,
    learners_of,
    pick_device,
)
from voxclone.train.state import TrainState

SCALE, MARGIN = 20.0, 0.1
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


class VoicesTraining(Settings):
    """Values of the training of a `VoiceNetwork`."""

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
    """Telling the speakers of a corpus apart; see `run.Task`."""

    settings: VoicesTraining
    corpus: Corpus
    train: Subset
    valid: Subset
    speakers: list[str]
    model: VoiceNetwork
    state: TrainState

    @classmethod
    def create(
        cls, settings: VoicesTraining, corpus: Corpus, train: Subset, valid: Subset
    ) -> "VoicesTask":
        """A fresh network for the speakers of `train`."""
        speakers = sorted(train.by_speaker())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.run.seed)
            model = VoiceNetwork(len(speakers), settings.dim, settings.blocks)
        model.to(pick_device(settings.run.device))
        state = TrainState({"voices": model}, learners_of(model, settings.optimiser))
        state.values["speakers"] = len(speakers)
        return cls(settings, corpus, train, valid, speakers, model, state)

    def train_step(self, step: int) -> dict[str, Tensor]:
        """Additive-margin softmax over speakers (arXiv 1801.05599) of short noisy crops."""
        settings = self.settings
        generator = step_generator(settings.run.seed, step)
        if not hasattr(self, "_weights_N"):
            self._weights_N = self.train.weights(settings.evenness)
        samples = int(settings.seconds * 24000)
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
        norm = apply_gradients(self.state.learners, settings.optimiser, step, settings.run.steps)
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


def freeze(*networks: nn.Module) -> None:
    """Without dropout, and without gradients of their own."""
    for network in networks:
        network.eval().requires_grad_(False)


@dataclass(frozen=True)
class Listeners:
    """Frozen networks that compare decoded speech with the recording."""

    recogniser: Recogniser
    voices: VoiceNetwork

    @classmethod
    def frozen(cls, recogniser: Recogniser, voices: VoiceNetwork) -> "Listeners":
        """Both without dropout and without gradients of their own."""
        freeze(recogniser, voices)
        return cls(recogniser, voices)

    def distance(self, estimate_BS: Tensor, target_BS: Tensor) -> Tensor:
        """Mean over both listeners and all their blocks of the L1 distance of states, over the mean
        size of the recording's."""
        terms = []
        for network in (self.recogniser, self.voices):
            trunk = network if isinstance(network, Recogniser) else network.trunk
            with torch.no_grad():
                wanted = _states(trunk, network.features(target_BS))
            made = _states(trunk, network.features(estimate_BS))
            terms += [
                (m.float() - w.float()).abs().mean() / w.float().abs().mean().clamp(min=1e-4)
                for m, w in zip(made, wanted, strict=True)
            ]
        return torch.stack(terms).mean()


def _states(trunk: Recogniser, features_BMT: Tensor) -> Sequence[Tensor]:
    """States [B, T, D] after the first convolutions and after every block."""
    x_BDT = F.gelu(trunk.reduce(F.gelu(trunk.input(features_BMT))))
    states = [x_BDT.transpose(1, 2)]
    for block in trunk.blocks:
        states.append(block(states[-1]))
    return states
