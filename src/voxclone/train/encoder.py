"""Phase 1: recover the withheld encoder against the frozen decoder and code book.

Three kinds of material, each switched on by its weights (design, section 5):
- *pairs*: codes that the release made, decoded; the encoder must give the codes back;
- *cycle*: codes that the encoder itself gives for real speech, decoded and encoded again; and real
  speech, degraded, which must give the codes of the speech as it was (*robust*);
- *real*: real speech through encoder, quantizer and frozen decoder, held near the statistics of
  genuine codes by priors and by a critic on short runs of codes.

Shapes: B batch, S samples, D latent width, T frames, K code books, C acoustic channels, Q levels.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.errors import ConfigError
from voxclone.evaluate.codes import agreement
from voxclone.evaluate.recogniser import Recogniser
from voxclone.settings import Settings
from voxclone.train.augment import Degradation, degrade
from voxclone.train.bridge import Bridge, advice, lesson
from voxclone.train.corpus import Corpus, Subset, step_generator
from voxclone.train.critic import CodeCritic, critic_loss, fooling_loss
from voxclone.train.initial import initialise
from voxclone.train.log import Log
from voxclone.train.losses import code_losses, low_loss, mel_loss, stft_loss
from voxclone.train.pairs import PairSettings
from voxclone.train.priors import CodePriors, level_loss, usage_loss
from voxclone.train.run import (
    OptimiserSettings,
    RunSettings,
    TrainState,
    adamw,
    apply_gradients,
    learners_of,
    pick_device,
)

OWN_SEEDS = 10**9
"""A codec trained from scratch with the same seed may be the one to recover: beginning where its
encoder began would be no recovery."""


class EncoderWeights(Settings):
    """Weight of each loss; 0 leaves it out."""

    pair_semantic: float = 0.2
    pair_levels: float = 1.0
    cycle_semantic: float = 0.1
    cycle_levels: float = 0.5
    robust_semantic: float = 0.0
    robust_levels: float = 0.0
    mel: float = 2.0
    stft: float = 0.0
    low: float = 0.0
    critic: float = 0.0
    level_prior: float = 0.0
    usage_prior: float = 0.0
    commitment: float = 0.0
    bridge: float = 0.0


class EncoderTraining(Settings):
    """Values of one recovery. `licences`, where given, leaves out clips under any other."""

    run: RunSettings
    model: str = "mini"
    speech: Path | None = None
    licences: tuple[str, ...] | None = None
    texts: Path | None = None
    teacher: str | None = None
    """Folder of a recogniser, or mini, for the weight `bridge`."""
    optimiser: OptimiserSettings = OptimiserSettings(lr=1e-3, betas=(0.8, 0.99))
    weights: EncoderWeights = EncoderWeights()
    pairs: PairSettings = PairSettings()
    pair_batch: int = 8
    real_batch: int = 8
    frames: int = 24
    perturb_share: float = 0.3
    perturb_levels: float = 0.15
    cycle_from: int = 400
    real_from: int = 200
    mel_scales: tuple[tuple[int, int], ...] = ((1024, 120), (512, 80), (256, 40))
    spectral_floor: float = 0.0
    critic_lr: float = 3e-4
    degradation: Degradation = Degradation()
    semantic_share: float = 0.5
    acoustic_shares: tuple[float, float] = (0.5, 0.25)
    evenness: float = 0.7


@dataclass
class EncoderTask:
    """A recovery in progress; see `run.Task`. `genuine` are codes [K, T] that the release made."""

    settings: EncoderTraining
    codec: Codec
    genuine: Sequence[Tensor]
    held_out: dict[str, Tensor]
    corpus: Corpus
    train: Subset
    critic: CodeCritic
    priors: CodePriors
    state: TrainState
    bridge: Bridge | None = None

    @classmethod
    def create(
        cls,
        settings: EncoderTraining,
        codec: Codec,
        genuine: Sequence[Tensor],
        held_out: dict[str, Tensor],
        corpus: Corpus,
        train: Subset,
        teacher: Recogniser | None = None,
    ) -> "EncoderTask":
        """A fresh encoder beside the frozen decoder of `codec` (any encoder it has is not used)."""
        if settings.weights.bridge and teacher is None:
            raise ConfigError("The weight `bridge` needs a `teacher`: the folder of a recogniser.")
        device = pick_device(settings.run.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.run.seed)
            fresh = Codec(codec.config)
            initialise(fresh, OWN_SEEDS + settings.run.seed)
            critic = CodeCritic(codec.config)
            bridge = None
            if settings.weights.bridge and teacher is not None:
                bridge = Bridge(teacher, codec.config.semantic_dim, codec.frame_size).to(device)
        fresh.decoder.load_state_dict(codec.decoder.state_dict())
        fresh.quantizer.load_state_dict(codec.quantizer.state_dict())
        fresh.to(device)
        fresh.decoder.requires_grad_(False)
        encoder = fresh.require_encoder()
        rates = settings.optimiser.model_copy(update={"lr": settings.critic_lr})
        state = TrainState(
            {"encoder": encoder, "critic": critic.to(device)},
            learners_of(encoder, settings.optimiser)
            | {"critic": adamw(critic.parameters(), rates)},
        )
        if bridge is not None:
            state.modules["bridge"] = bridge
            state.optimisers["bridge"] = adamw(bridge.parameters(), settings.optimiser)
        priors = CodePriors.from_codes(fresh, genuine)
        return cls(settings, fresh, genuine, held_out, corpus, train, critic, priors, state, bridge)

    def train_step(self, step: int) -> dict[str, Tensor]:
        settings, weights = self.settings, self.settings.weights
        generator = step_generator(settings.run.seed, step)
        losses: dict[str, Tensor] = {}
        with torch.autocast(self._device.type, torch.bfloat16, enabled=settings.run.autocast):
            codes_BKT, mask_BT = self._genuine(generator)
            if weights.pair_semantic or weights.pair_levels:
                made_BS = self._decode(codes_BKT, generator)
                if self.bridge is not None:
                    self._teach_bridge(self.bridge, made_BS, codes_BKT[:, 0], mask_BT, step)
                latent_BDT = self._encode(made_BS)
                pair = code_losses(self.codec.quantizer, latent_BDT, codes_BKT, mask_BT=mask_BT)
                losses |= {"pair_semantic": pair.semantic, "pair_levels": pair.levels}
            if step >= settings.real_from:
                losses |= self._real(step, generator, codes_BKT, mask_BT)
        total = sum(getattr(weights, name) * value for name, value in losses.items())
        assert isinstance(total, Tensor)
        total.backward()
        norm = apply_gradients(self.state.learners, settings.optimiser, step, settings.run.steps)
        figures = {f"loss/{name}": value for name, value in losses.items()}
        return figures | {"loss/total": total, "other/grad_norm": norm}

    def _real(
        self, step: int, generator: torch.Generator, codes_BKT: Tensor, mask_BT: Tensor
    ) -> dict[str, Tensor]:
        settings, weights = self.settings, self.settings.weights
        wave_BS = self._draw(generator)
        latent_BDT = self._encode(wave_BS)
        quantizer = self.codec.quantizer
        losses: dict[str, Tensor] = {}
        quantized = quantizer.train_forward(
            latent_BDT,
            generator,
            semantic_share=settings.semantic_share,
            acoustic_shares=settings.acoustic_shares,
        )
        if weights.mel or weights.stft or weights.low:
            decoded_BS = self.codec.decoder(quantized.latent_BDT).float()
        if weights.mel:
            losses["mel"] = mel_loss(
                decoded_BS, wave_BS, settings.mel_scales, floor=settings.spectral_floor
            )
        if weights.stft:
            losses["stft"] = stft_loss(
                decoded_BS, wave_BS, (2048, 512, 128), floor=settings.spectral_floor
            )
        if weights.low:
            losses["low"] = low_loss(decoded_BS, wave_BS)
        if self.bridge is not None:
            semantic_BDT, _ = quantizer.split(latent_BDT)
            book = quantizer.semantic_codebook
            losses["bridge"] = advice(self.bridge, book, wave_BS, semantic_BDT)
        if weights.commitment:
            losses["commitment"] = quantized.commitment
        if weights.level_prior:
            losses["level_prior"] = level_loss(self.priors, quantizer, latent_BDT)
        if weights.usage_prior:
            losses["usage_prior"] = usage_loss(self.priors, quantizer, latent_BDT)
        if weights.critic:
            losses["critic"] = self._criticise(latent_BDT, codes_BKT, mask_BT, step)
        if step < settings.cycle_from:
            return losses
        with torch.no_grad():
            own_BKT = quantizer.encode(latent_BDT.detach().float())
        if weights.cycle_semantic or weights.cycle_levels:
            again_BDT = self._encode(self._decode(own_BKT, generator))
            cycle = code_losses(quantizer, again_BDT, own_BKT)
            losses |= {"cycle_semantic": cycle.semantic, "cycle_levels": cycle.levels}
        if weights.robust_semantic or weights.robust_levels:
            degraded_BS = degrade(wave_BS, settings.degradation, generator)
            robust = code_losses(quantizer, self._encode(degraded_BS), own_BKT)
            losses |= {"robust_semantic": robust.semantic, "robust_levels": robust.levels}
        return losses

    def _teach_bridge(
        self, bridge: Bridge, wave_BS: Tensor, codes_BT: Tensor, mask_BT: Tensor, step: int
    ) -> None:
        book = self.codec.quantizer.semantic_codebook
        lesson(bridge, book, wave_BS, codes_BT, mask_BT).backward()
        rates = self.settings.optimiser
        apply_gradients([self.state.optimisers["bridge"]], rates, step, self.settings.run.steps)

    def _criticise(
        self, latent_BDT: Tensor, codes_BKT: Tensor, mask_BT: Tensor, step: int
    ) -> Tensor:
        """One step of the critic on genuine codes against those of real speech, then its opinion
        of the latter, with gradients into the encoder."""
        quantizer = self.codec.quantizer
        genuine_BDT = quantizer.decode(codes_BKT)
        claimed_BDT = quantizer.soften(latent_BDT)
        self.critic.requires_grad_(True)
        loss = critic_loss(self.critic(genuine_BDT), self.critic(claimed_BDT.detach()), mask_BT)
        loss.backward()
        rates = self.settings.optimiser.model_copy(update={"lr": self.settings.critic_lr})
        apply_gradients([self.state.optimisers["critic"]], rates, step, self.settings.run.steps)
        self.critic.requires_grad_(False)
        return fooling_loss(self.critic(claimed_BDT))

    def validate(self, step: int, log: Log) -> dict[str, float]:
        """Codes of the held-out presets, decoded and encoded again, and health on real speech."""
        encoder = self.codec.require_encoder()
        encoder.eval()
        results = []
        with torch.no_grad():
            for codes_KT in self.held_out.values():
                wave_BS = self.codec.decode(codes_KT[None].to(self._device))
                results.append(agreement(codes_KT, self.codec.encode(wave_BS)[0].cpu()))
            wave_BS = self._draw(step_generator(0, 0, stream=9))
            codes_BKT = self.codec.encode(wave_BS)
            decoded_BS = self.codec.decode(codes_BKT)[:, : wave_BS.shape[-1]]
            mel = mel_loss(decoded_BS, wave_BS)
        encoder.train()
        levels = codes_BKT[:, 1:]
        top = self.codec.quantizer.levels - 1
        if log is not None:
            log.audio(step, "real/decoded", decoded_BS[0])
        return {
            "preset/semantic": sum(r.semantic for r in results) / len(results),
            "preset/exact": sum(r.exact for r in results) / len(results),
            "preset/within_one": sum(r.within_one for r in results) / len(results),
            "real/mel": float(mel),
            "real/codes_in_use": float(len(codes_BKT[:, 0].unique())),
            "real/extreme": float(((levels == 0) | (levels == top)).float().mean()),
        }

    @property
    def _device(self) -> torch.device:
        return self.codec.quantizer.semantic_codebook.cluster_usage.device

    def _encode(self, wave_BS: Tensor) -> Tensor:
        latent_BDT: Tensor = self.codec.require_encoder()(wave_BS)
        return latent_BDT.float()

    def _draw(self, generator: torch.Generator) -> Tensor:
        if not hasattr(self, "_weights_N"):
            self._weights_N = self.train.weights(self.settings.evenness)
        samples = self.settings.frames * self.codec.frame_size
        drawn = self.train.crops(self.settings.real_batch, samples, generator, self._weights_N)
        return drawn.wave_BS.to(self._device)

    def _genuine(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Genuine codes from the beginning of an utterance (so that nothing has an unknown past),
        some of them perturbed, and which frames are real."""
        settings = self.settings
        frames, rows, masks = settings.frames, [], []
        for _ in range(settings.pair_batch):
            which = int(torch.randint(len(self.genuine), (1,), generator=generator))
            codes_KT = self.genuine[which][:, :frames]
            gap = frames - codes_KT.shape[1]
            masks.append(torch.arange(frames) < codes_KT.shape[1])
            rows.append(F.pad(codes_KT, (0, gap)))
        codes_BKT = self._perturb(torch.stack(rows), generator)
        return codes_BKT.to(self._device), torch.stack(masks).to(self._device)

    @torch.no_grad()
    def _decode(self, codes_BKT: Tensor, generator: torch.Generator) -> Tensor:
        """Speech of codes, degraded."""
        wave_BS = self.codec.decoder(self.codec.quantizer.decode(codes_BKT)).float()
        return degrade(wave_BS, self.settings.degradation, generator)

    def _perturb(self, codes_BKT: Tensor, generator: torch.Generator) -> Tensor:
        """Some items get some of their levels moved by one or two: codes near genuine ones."""
        settings = self.settings
        chosen_B11 = torch.rand(len(codes_BKT), 1, 1, generator=generator) < settings.perturb_share
        moved = torch.rand(codes_BKT.shape, generator=generator) < settings.perturb_levels
        by = torch.randint(-2, 3, codes_BKT.shape, generator=generator)
        other = (codes_BKT + by).clamp(0, self.codec.quantizer.levels - 1)
        moved[:, 0] = False
        return torch.where(chosen_B11 & moved, other, codes_BKT)


def encoder_state(task: EncoderTask) -> dict[str, Tensor]:
    """The trained encoder's tensors under the names of the release."""
    state = task.codec.require_encoder().state_dict()
    return {f"audio_tokenizer.{k}": copy.deepcopy(v).cpu() for k, v in state.items()}
