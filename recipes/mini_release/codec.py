"""Training a codec from scratch: what the mini release's codec is made with.

The objective follows arXiv 2603.25551, section 2 (stochastic quantisation, L1 and STFT losses,
commitment, semantic distillation, feature matching) with a multi-scale mel loss, and adds two terms
of our own, without which nobody could read the codes of a small codec off its speech:

- *re-encoding consistency*: decoded speech, degraded (`augment`), must give the codes that it was
  decoded from. Only the decoder learns from this: an encoder that is taught on decoded speech
  learns to read marks that real speech does not have.
- *robustness*: degraded real speech must give the codes of the speech itself.

Shapes: B batch, S samples, D latent width, T frames, K code books, V code vectors, N latents.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from recipes.mini_release.listeners import Listeners
from recipes.mini_release.teacher import TeacherFeatures
from recipes.mini_release.training import (
    Adversary,
    AdversarySettings,
    OptimiserSettings,
    RunSettings,
    apply_gradients,
    contest,
    learners,
    waveform_losses,
)
from voxclone.audio.distance import mel_loss
from voxclone.codec.config import CodecConfig
from voxclone.codec.initialization import initialize
from voxclone.codec.model import Codec
from voxclone.codec.quantizer import SemanticCodebook
from voxclone.config import Settings
from voxclone.data.augment import Degradation, degrade
from voxclone.data.corpus import Corpus, Subset
from voxclone.device import pick_device
from voxclone.errors import ConfigError
from voxclone.evaluate.agreement import agreement
from voxclone.rng import step_generator
from voxclone.spec import SAMPLING_RATE
from voxclone.train.asr_distillation import Distillation
from voxclone.train.checkpoint import TrainState
from voxclone.train.logging import Log
from voxclone.train.losses import STFT_SIZES, code_losses, straight_through
from voxclone.train.monitor import log_codes
from voxclone.train.optim import adamw, build_optimizers


class CodecWeights(Settings):
    """Weight of each loss; 0 leaves it out."""

    mel: float = 4.0
    stft: float = 1.0
    l1: float = 0.1
    low: float = 0.0
    feature: float = 2.0
    heard: float = 0.0
    commitment: float = 0.5
    semantic: float = 2.0
    again_semantic: float = 0.3
    again_levels: float = 0.6
    robust_semantic: float = 0.2
    robust_levels: float = 0.4


class CodecTraining(Settings):
    """Values of one codec's training."""

    run: RunSettings
    optimiser: OptimiserSettings = OptimiserSettings(lr=8e-4, betas=(0.8, 0.99))
    weights: CodecWeights = CodecWeights()
    batch: int = 12
    frames: int = 24
    evenness: float = 0.5
    phases_until: int = 0
    """Up to this step every loss but `low` has a quarter of its weight: the decoder finds the
    fundamental of voices first, while it is not yet content with a whisper."""
    quantise_from: int = 300
    consistency_from: int = 1000
    adversary: AdversarySettings = AdversarySettings()
    adversary_from: int = 4000
    adversary_every: int = 1
    adversary_lr: float = 3e-4
    degradation: Degradation = Degradation()
    usage_decay: float = 0.99
    revive_below: float = 0.03
    stffts: tuple[int, ...] = STFT_SIZES
    spectral_floor: float = 0.0


@torch.no_grad()
def update_codebook(
    book: SemanticCodebook,
    latent_ND: Tensor,
    codes_N: Tensor,
    *,
    decay: float,
    revive_below: float,
    generator: torch.Generator,
) -> Tensor:
    """EMA of counts and sums (VQ-VAE, appendix A.1). A vector whose count falls below
    `revive_below` times the mean count is moved to a random latent. Returns how many were moved."""
    counts_V = torch.bincount(codes_N, minlength=len(book.cluster_usage)).to(latent_ND.dtype)
    sums_VD = torch.zeros_like(book.embedding_sum).index_add_(0, codes_N, latent_ND)
    book.cluster_usage.mul_(decay).add_(counts_V, alpha=1 - decay)
    book.embedding_sum.mul_(decay).add_(sums_VD, alpha=1 - decay)
    mean = book.cluster_usage.mean()
    dead_V = book.cluster_usage < revive_below * mean
    count = int(dead_V.sum())
    if count:
        chosen = torch.randint(len(latent_ND), (count,), generator=generator)
        book.cluster_usage[dead_V] = mean
        book.embedding_sum[dead_V] = latent_ND[chosen] * mean
    return torch.tensor(float(count))


@dataclass
class CodecTask:
    """A codec in training; see `loop.Task`."""

    settings: CodecTraining
    corpus: Corpus
    train: Subset
    valid: Subset
    codec: Codec
    teacher: TeacherFeatures
    distillation: Distillation
    adversary: Adversary
    state: TrainState
    listeners: Listeners | None = None

    @classmethod
    def create(
        cls,
        settings: CodecTraining,
        config: CodecConfig,
        corpus: Corpus,
        train: Subset,
        valid: Subset,
        teacher: TeacherFeatures,
        listeners: Listeners | None = None,
    ) -> "CodecTask":
        """A fresh codec and the projection through which it is taught; `listeners` are needed where
        the weight of `heard` is not 0."""
        if settings.weights.heard and listeners is None:
            raise ConfigError("The weight `heard` needs listeners.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.run.seed)
            codec = Codec(config)
            initialize(codec, settings.run.seed)
            distillation = Distillation(config.semantic_dim, teacher.dim, teacher.per_frame)
            adversary = Adversary(settings.adversary)
        device = pick_device(settings.run.device)
        taught = nn.ModuleList([codec, distillation]).to(device)
        judge_optimiser = settings.optimiser.model_copy(update={"lr": settings.adversary_lr})
        state = TrainState(
            {"codec": codec, "distillation": distillation, "adversary": adversary.to(device)},
            build_optimizers(taught, settings.optimiser)
            | {"adversary": adamw(adversary.parameters(), judge_optimiser)},
        )
        return cls(
            settings,
            corpus,
            train,
            valid,
            codec,
            teacher,
            distillation,
            adversary,
            state,
            listeners,
        )

    def train_step(self, step: int) -> dict[str, Tensor]:
        settings, weights = self.settings, self.settings.weights
        generator = step_generator(settings.run.seed, step)
        wave_BS, target = self._draw(generator)
        quantise = step >= settings.quantise_from
        judged = step >= settings.adversary_from and step % settings.adversary_every == 0
        if step == settings.quantise_from:
            self._start_codebook(generator)
        with torch.autocast(wave_BS.device.type, torch.bfloat16, enabled=settings.run.autocast):
            latent_BDT = self._encode(wave_BS).float()
            quantized = self.codec.quantizer.train_forward(
                latent_BDT,
                generator,
                semantic_share=0.5 if quantise else 0.0,
                acoustic_shares=(0.5, 0.25) if quantise else (0.0, 0.0),
            )
            decoded_BS = self.codec.decoder(quantized.latent_BDT).float()
            losses = waveform_losses(
                decoded_BS,
                wave_BS,
                weights.model_dump(),
                floor=settings.spectral_floor,
                n_ffts=settings.stffts,
                listeners=self.listeners,
            )
            semantic_BDT = self.codec.quantizer.split(latent_BDT)[0]
            if quantise:
                semantic_BDT = straight_through(
                    self.codec.quantizer.semantic_codebook, semantic_BDT, quantized.codes_BKT
                )
            losses["semantic"] = self.distillation(semantic_BDT, target)
            if quantise:
                losses["commitment"] = quantized.commitment
            if step >= settings.consistency_from:
                losses |= self._consistency(wave_BS, decoded_BS, quantized.codes_BKT, generator)
            if judged:
                rates = settings.optimiser.model_copy(update={"lr": settings.adversary_lr})
                judges, steps = self.state.optimizers["adversary"], settings.run.steps
                hinge, losses["feature"] = contest(
                    self.adversary, judges, rates, step, steps, wave_BS, decoded_BS
                )
        share = 0.25 if step < settings.phases_until else 1.0
        total = sum(
            getattr(weights, name) * value * (1.0 if name == "low" else share)
            for name, value in losses.items()
        )
        assert isinstance(total, Tensor)
        total.backward()
        norm = apply_gradients(learners(self.state), settings.optimiser, step, settings.run.steps)
        figures = {f"loss/{name}": value for name, value in losses.items()}
        figures |= {"loss/total": total, "other/grad_norm": norm}
        if judged:
            figures["loss/hinge"] = hinge
        if quantise:
            figures["codes/revived"] = self._update_codebook(
                latent_BDT, quantized.codes_BKT, step, generator
            )
        return figures

    def _encode(self, wave_BS: Tensor) -> Tensor:
        latent_BDT: Tensor = self.codec.require_encoder()(wave_BS)
        return latent_BDT

    def _consistency(
        self, wave_BS: Tensor, decoded_BS: Tensor, codes_BKT: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Codes of degraded decoded speech, read by an encoder that does not learn from it, and of
        degraded real speech, against the first codes."""
        degradation, quantizer = self.settings.degradation, self.codec.quantizer
        encoder = self.codec.require_encoder()
        fixed = {name: value.detach() for name, value in encoder.named_parameters()}
        degraded_BS = degrade(decoded_BS, degradation, generator)
        again_BDT = functional_call(encoder, fixed, (degraded_BS,)).float()
        again = code_losses(quantizer, again_BDT, codes_BKT)
        robust_BDT = self._encode(degrade(wave_BS, degradation, generator)).float()
        robust = code_losses(quantizer, robust_BDT, codes_BKT)
        return {
            "again_semantic": again.semantic,
            "again_levels": again.levels,
            "robust_semantic": robust.semantic,
            "robust_levels": robust.levels,
        }

    def validate(self, step: int, log: Log) -> dict[str, float]:
        """Reconstruction and re-encoding of whole held-out clips."""
        self.codec.eval()
        mel, bound, count = 0.0, [], 24
        indices = self.valid.indices[:: max(1, len(self.valid.indices) // count)][:count]
        used = []
        with torch.no_grad():
            for position, index in enumerate(indices):
                wave_BS = self.corpus.wave(
                    index, 0, min(self.corpus.length(index), SAMPLING_RATE * 6)
                )[None]
                codes_BKT = self.codec.encode(wave_BS)
                decoded_BS = self.codec.decode(codes_BKT)
                mel += float(mel_loss(decoded_BS[:, : wave_BS.shape[-1]], wave_BS)) / len(indices)
                bound.append(agreement(codes_BKT[0], self.codec.encode(decoded_BS)[0]))
                used.append(codes_BKT[0])
                if position < 4:
                    log.audio(step, f"decoded/{position}", decoded_BS[0])
                    if step <= self.settings.run.validate_every:
                        log.audio(step, f"original/{position}", wave_BS[0])
        used_KN = torch.cat(used, dim=1)
        log_codes(used_KN[None], self.codec, "valid", step, log)
        self.codec.train()
        return {
            "valid/mel": mel,
            "valid/again_semantic": sum(a.semantic for a in bound) / len(bound),
            "valid/again_exact": sum(a.exact for a in bound) / len(bound),
            "valid/again_within_one": sum(a.within_one for a in bound) / len(bound),
            "valid/codes_in_use": float(len(used_KN[0].unique())),
        }

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        settings = self.settings
        if not hasattr(self, "_weights_N"):
            self._weights_N = self.train.weights(settings.evenness)
        samples = settings.frames * self.codec.frame_size
        drawn = self.train.crops(
            settings.batch, samples, generator, self._weights_N, grid=self.teacher.hop
        )
        device = next(self.codec.parameters()).device
        return drawn.wave_BS.to(device), self.teacher.crops(drawn).to(device)

    @torch.no_grad()
    def _start_codebook(self, generator: torch.Generator) -> None:
        """Code vectors start as latents of random speech."""
        book = self.codec.quantizer.semantic_codebook
        size = len(book.cluster_usage)
        latents: list[Tensor] = []
        while sum(len(latent) for latent in latents) < size:
            wave_BS, _ = self._draw(generator)
            semantic_BDT, _ = self.codec.quantizer.split(self._encode(wave_BS).float())
            latents.append(semantic_BDT.transpose(1, 2).flatten(0, 1))
        all_ND = torch.cat(latents)
        chosen = torch.randperm(len(all_ND), generator=generator)[:size]
        book.cluster_usage.fill_(1.0)
        book.embedding_sum.copy_(all_ND[chosen])

    def _update_codebook(
        self, latent_BDT: Tensor, codes_BKT: Tensor, step: int, generator: torch.Generator
    ) -> Tensor:
        semantic_BDT, _ = self.codec.quantizer.split(latent_BDT.detach())
        settling = step > 0.8 * self.settings.run.steps
        return update_codebook(
            self.codec.quantizer.semantic_codebook,
            semantic_BDT.transpose(1, 2).flatten(0, 1),
            codes_BKT[:, 0].flatten(),
            decay=self.settings.usage_decay,
            revive_below=0.0 if settling else self.settings.revive_below,
            generator=generator,
        )
