"""Finishing a codec's decoder while its codes stay as they are.

Once encoder and code book are done, the language model can be trained on their codes; what is left
of the decoder's training cannot change them. The decoder hears whole codes only, as it will in use,
and the consistency loss of `codec` weighs more, since no other part has to give way to it.

Shapes: B batch, S samples, D latent width, T frames, K code books.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.mini_release.listeners import Listeners
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
from voxclone.codec.model import Codec
from voxclone.config import Settings
from voxclone.data.augment import Degradation, degrade
from voxclone.data.corpus import Corpus, Subset
from voxclone.device import pick_device
from voxclone.errors import ConfigError
from voxclone.evaluate.agreement import agreement
from voxclone.rng import step_generator
from voxclone.train.checkpoint import TrainState
from voxclone.train.logging import Log
from voxclone.train.losses import STFT_SIZES, code_losses
from voxclone.train.optim import adamw, build_optimizers


class DecoderWeights(Settings):
    """Weight of each loss."""

    mel: float = 4.0
    stft: float = 1.0
    low: float = 0.0
    feature: float = 2.0
    heard: float = 0.0
    again_semantic: float = 1.0
    again_levels: float = 1.0


class DecoderTraining(Settings):
    """Values of the training; the discriminators go on from the codec's, with the same settings."""

    run: RunSettings
    optimiser: OptimiserSettings = OptimiserSettings(lr=4e-4, betas=(0.8, 0.99), warmup_steps=20)
    weights: DecoderWeights = DecoderWeights()
    batch: int = 12
    frames: int = 24
    evenness: float = 0.5
    adversary_every: int = 2
    adversary_lr: float = 3e-4
    degradation: Degradation = Degradation()
    stffts: tuple[int, ...] = STFT_SIZES
    spectral_floor: float = 0.0


@dataclass
class DecoderTask:
    """A decoder in training behind a frozen encoder; see `loop.Task`."""

    settings: DecoderTraining
    corpus: Corpus
    train: Subset
    valid: Subset
    codec: Codec
    adversary: Adversary
    state: TrainState
    listeners: Listeners | None = None

    @classmethod
    def create(
        cls,
        settings: DecoderTraining,
        codec: Codec,
        adversary_state: dict[str, Tensor],
        adversary_settings: AdversarySettings,
        corpus: Corpus,
        train: Subset,
        valid: Subset,
        listeners: Listeners | None = None,
    ) -> "DecoderTask":
        """Goes on from the decoder of `codec` and from discriminators; `listeners` are needed where
        the weight of `heard` is not 0."""
        if settings.weights.heard and listeners is None:
            raise ConfigError("The weight `heard` needs listeners.")
        adversary = Adversary(adversary_settings)
        adversary.load_state_dict(adversary_state)
        device = pick_device(settings.run.device)
        codec.to(device).requires_grad_(False)
        codec.decoder.requires_grad_(True)
        rates = settings.optimiser.model_copy(update={"lr": settings.adversary_lr})
        state = TrainState(
            {"decoder": codec.decoder, "adversary": adversary.to(device)},
            build_optimizers(codec.decoder, settings.optimiser)
            | {"adversary": adamw(adversary.parameters(), rates)},
        )
        return cls(settings, corpus, train, valid, codec, adversary, state, listeners)

    def train_step(self, step: int) -> dict[str, Tensor]:
        settings, weights, codec = self.settings, self.settings.weights, self.codec
        generator = step_generator(settings.run.seed, step, stream=5)
        device = codec.quantizer.semantic_codebook.cluster_usage.device
        if not hasattr(self, "_weights_N"):
            self._weights_N = self.train.weights(settings.evenness)
        samples = settings.frames * codec.frame_size
        drawn = self.train.crops(settings.batch, samples, generator, self._weights_N)
        wave_BS = drawn.wave_BS.to(device)
        judged = bool(weights.feature) and step % settings.adversary_every == 0
        hinge = None
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.run.autocast):
            with torch.no_grad():
                latent_BDT = codec.require_encoder()(wave_BS).float()
                codes_BKT = codec.quantizer.encode(latent_BDT)
                given_BDT = codec.quantizer.decode(codes_BKT)
            decoded_BS = codec.decoder(given_BDT).float()
            losses = waveform_losses(
                decoded_BS,
                wave_BS,
                weights.model_dump(),
                floor=settings.spectral_floor,
                n_ffts=settings.stffts,
                listeners=self.listeners,
            )
            degraded_BS = degrade(decoded_BS, settings.degradation, generator)
            again_BDT = codec.require_encoder()(degraded_BS).float()
            again = code_losses(codec.quantizer, again_BDT, codes_BKT)
            losses |= {"again_semantic": again.semantic, "again_levels": again.levels}
            if judged:
                rates = settings.optimiser.model_copy(update={"lr": settings.adversary_lr})
                judges, steps = self.state.optimizers["adversary"], settings.run.steps
                hinge, losses["feature"] = contest(
                    self.adversary, judges, rates, step, steps, wave_BS, decoded_BS
                )
        total = sum(getattr(weights, name) * value for name, value in losses.items())
        assert isinstance(total, Tensor)
        total.backward()
        norm = apply_gradients(learners(self.state), settings.optimiser, step, settings.run.steps)
        figures = {f"loss/{name}": value for name, value in losses.items()}
        figures |= {"loss/total": total, "other/grad_norm": norm}
        return figures if hinge is None else figures | {"loss/hinge": hinge}

    def validate(self, step: int, log: Log) -> dict[str, float]:
        """Reconstruction and re-encoding of whole held-out clips."""
        codec, indices = self.codec, self.valid.indices[:: max(1, len(self.valid.indices) // 24)]
        codec.eval()
        mel, bound = 0.0, []
        with torch.no_grad():
            for position, index in enumerate(indices):
                length = min(self.corpus.length(index), 6 * codec.sampling_rate)
                wave_BS = self.corpus.wave(index, 0, length)[None]
                wave_BS = wave_BS.to(codec.quantizer.semantic_codebook.cluster_usage.device)
                codes_BKT = codec.encode(wave_BS)
                decoded_BS = codec.decode(codes_BKT)
                mel += float(mel_loss(decoded_BS[:, : wave_BS.shape[-1]], wave_BS)) / len(indices)
                bound.append(agreement(codes_BKT[0], codec.encode(decoded_BS)[0]))
                if position < 4:
                    log.audio(step, f"decoded/{position}", decoded_BS[0])
                    if step <= self.settings.run.validate_every:
                        log.audio(step, f"original/{position}", wave_BS[0])
        codec.train()
        return {
            "valid/mel": mel,
            "valid/again_semantic": sum(a.semantic for a in bound) / len(bound),
            "valid/again_exact": sum(a.exact for a in bound) / len(bound),
            "valid/again_within_one": sum(a.within_one for a in bound) / len(bound),
        }
