"""Training of the mini release's codec, and then of its decoder alone.

The objective follows arXiv 2603.25551, section 2: stochastic quantization, mel and STFT losses,
commitment, ASR distillation from Whisper, and in the second half feature matching of STFT
discriminators. Two terms are ours: the squared distance of the waveforms below 500 Hz (`low`),
without which a small decoder finds no fundamental, and `objectives.PerceptualLoss`.

With `decoder_only`, encoder and codebook are frozen and the decoder reads whole codes, as in use.

Shapes: B batch, S samples, D latent width, T frames, K codebooks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from recipes.mini_release import objectives, optim
from recipes.mini_release.codebook import start_codebook, update_codebook
from recipes.mini_release.crops import CropSettings, CropSource, device_generator
from recipes.mini_release.graph import GraphedStep, Tensors
from recipes.mini_release.teacher import PER_FRAME, TeacherStates
from voxclone.codec.config import CodecConfig
from voxclone.codec.initialization import initialize
from voxclone.codec.model import Codec
from voxclone.codec.quantizer import QuantizationDraws
from voxclone.config import Settings
from voxclone.device import autocast
from voxclone.train.adversarial import (
    LEARNING_RATE,
    MultiResolutionSTFTDiscriminator,
    discriminator_loss,
    feature_matching_loss,
)
from voxclone.train.checkpoint import TrainState
from voxclone.train.logging import Log
from voxclone.train.loop import GRAD_NORM, RunSettings
from voxclone.train.losses import low_frequency_loss, straight_through

UNQUANTIZED, PLAIN, ADVERSARIAL = "unquantized", "plain", "adversarial"
"""Phases of a training, each a graph of its own."""
EARLY_SHARE = 0.25
"""Of the weights of all losses but `low`, as long as nothing is quantized."""
REVIVE_BELOW = 0.03
"""Share of the mean usage below which a code vector is moved."""
CODEC, DECODER, CODEBOOK = range(3)
"""Streams of random numbers."""


class CodecWeights(Settings):
    """Weights of the losses. `asr` is the distance of the semantic stream from the states of
    Whisper's decoder where a token is spoken, `states` that from its encoder's states."""

    mel: float = 2.0
    stft: float = 0.5
    low: float = 1.0
    perceptual: float = 1.5
    asr: float = 1.0
    states: float = 1.0
    commitment: float = 0.5
    feature: float = 2.0


class DiscriminatorSettings(Settings):
    """Sizes of the discriminators, and how many of the last frames of a crop they see."""

    n_ffts: tuple[int, ...] = (1024, 512, 256)
    channels: int = 16
    frames: int = 8


class CodecTraining(Settings):
    """Values of one codec's training. From step `quantize_from` on, latents are quantized and all
    losses have their weights. Discriminators train from `discriminators_from` on. Code vectors that
    are hardly used are moved to latents in the share `revive_until` of the steps."""

    run: RunSettings
    optimizer: optim.OptimizerSettings
    crops: CropSettings
    weights: CodecWeights = CodecWeights()
    quantize_from: int = 500
    discriminators: DiscriminatorSettings = DiscriminatorSettings()
    discriminators_from: int
    revive_until: float = 0.6
    spectral_floor: float = 0.1
    decoder_only: bool = False


@dataclass
class CodecTask:
    """A codec in training; see `loop.Task`. `projections` lead from the semantic stream to the
    teacher's states. `measure` gives the metrics of a validation."""

    settings: CodecTraining
    codec: Codec
    crops: CropSource
    teacher: TeacherStates | None
    projections: nn.ModuleDict
    discriminators: MultiResolutionSTFTDiscriminator
    perceptual: objectives.PerceptualLoss
    measure: Callable[[Codec, int], dict[str, float]]
    state: TrainState
    _steps: dict[str, GraphedStep] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        settings: CodecTraining,
        codec: Codec,
        crops: CropSource,
        teacher: TeacherStates | None,
        perceptual: objectives.PerceptualLoss,
        measure: Callable[[Codec, int], dict[str, float]],
    ) -> "CodecTask":
        """Goes on from the weights of `codec`. Without `decoder_only`, a teacher is needed."""
        device = crops.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.run.seed)
            projections = nn.ModuleDict()
            if teacher is not None:
                width = codec.quantizer.semantic_dim
                projections["asr"] = nn.Linear(width, teacher.dim, bias=False)
                projections["states"] = nn.Linear(width, PER_FRAME * teacher.dim)
            discriminators = MultiResolutionSTFTDiscriminator(
                settings.discriminators.channels, settings.discriminators.n_ffts
            )
        modules = {"codec": codec, "projections": projections, "discriminators": discriminators}
        for module in modules.values():
            module.to(device)
        codec.requires_grad_(not settings.decoder_only)
        codec.decoder.requires_grad_(True)
        named = {
            f"{prefix}.{name}": parameter
            for prefix, module in (("codec", codec), ("projections", projections))
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        optimizers = optim.build_optimizers(named, settings.optimizer)
        optimizers["discriminators"] = optim.fused_adamw(
            discriminators.parameters(), settings.optimizer, LEARNING_RATE
        )
        state = TrainState(modules, optimizers)
        return cls(
            settings, codec, crops, teacher, projections, discriminators, perceptual.to(device),
            measure, state,
        )  # fmt: skip

    def phase(self, step: int) -> str:
        if step < self.settings.quantize_from and not self.settings.decoder_only:
            return UNQUANTIZED
        return ADVERSARIAL if step >= self.settings.discriminators_from else PLAIN

    def train_step(self, step: int) -> Tensors:
        settings, phase = self.settings, self.phase(step)
        if step == settings.quantize_from and not settings.decoder_only:
            start_codebook(self.codec, self.crops, self._generator(step, CODEBOOK))
        steps, rates = settings.run.steps, settings.optimizer
        share = optim.rate_share(step, steps, rates, rates.warmup_steps)
        optim.set_rates(self._learners(), share)
        discriminators = self.state.optimizers["discriminators"]
        optim.set_rates([discriminators], optim.rate_share(step, steps, rates, 0))
        if phase not in self._steps:
            self._steps[phase] = GraphedStep(partial(self._step, phase), self.state)
        inputs = self.draw(step)
        with self.state.updating():
            return self._steps[phase](inputs)

    def validate(self, step: int, log: Log) -> dict[str, float]:
        """Reconstruction, words, voices and re-encoding of held-out clips."""
        self.codec.eval()
        metrics = self.measure(self.codec, step)
        self.codec.train()
        return metrics

    def draw(self, step: int) -> Tensors:
        """All that a step depends on besides the state: crops, states under them, and numbers."""
        settings, device = self.settings, self.crops.device
        generator = self._generator(step, DECODER if settings.decoder_only else CODEC)
        crops = self.crops.draw(generator)
        batch, frames = settings.crops.batch, settings.crops.frames
        first, last = frames // 2, frames - settings.discriminators.frames
        inputs = {
            "wave": crops.wave_BS,
            "spectral_starts": objectives.draw_starts(generator),
            "discriminator_frame": torch.randint(
                first, max(first, last) + 1, (), generator=generator, device=device
            ),
        }
        if self.teacher is None:
            return inputs
        one, acoustic = (batch, 1, 1), self.codec.config.acoustic_dim
        shapes = {"semantic_draw": one, "dither": (batch, acoustic, frames), "acoustic_draw": one}
        for name, shape in shapes.items():
            inputs[name] = torch.rand(shape, generator=generator, device=device)
        size = self.codec.config.semantic_codebook_size
        inputs["revived"] = torch.randint(
            batch * frames, (size,), generator=generator, device=device
        )
        limit = REVIVE_BELOW if step < settings.revive_until * settings.run.steps else 0.0
        inputs["revive_below"] = torch.full((), limit, device=device)
        return inputs | self.teacher.under(crops, frames, settings.crops.changed_rows)

    def _step(self, phase: str, inputs: Tensors) -> Tensors:
        """One step of the codec and, in the phase `adversarial`, of the discriminators."""
        settings, wave_BS = self.settings, inputs["wave"]
        metrics: Tensors = {}
        device, wanted = wave_BS.device, settings.run.autocast
        optim.clear_gradients(self._learners())
        with autocast(device, enabled=wanted, cache_enabled=False):
            with torch.set_grad_enabled(not settings.decoder_only):
                latent_BDT = self.codec.require_encoder()(wave_BS).float()
            with torch.autocast(device.type, enabled=False):
                read_BDT, codes_BKT, losses = self._quantize(phase, latent_BDT, inputs)
            decoded_BS = self.codec.decoder(read_BDT).float()
            losses["perceptual"] = self.perceptual(decoded_BS, wave_BS)
            if phase == ADVERSARIAL:
                real, decoded = self._for_discriminators(wave_BS, decoded_BS, inputs)
                metrics["loss/discriminator"] = self._step_discriminators(real, decoded)
                losses["feature"] = feature_matching_loss(self.discriminators, real, decoded)
        losses |= objectives.spectral_losses(
            decoded_BS, wave_BS, inputs["spectral_starts"], floor=settings.spectral_floor
        )
        losses["low"] = low_frequency_loss(decoded_BS, wave_BS)
        weights = settings.weights.model_dump()
        if phase == UNQUANTIZED:
            weights = {n: w if n == "low" else EARLY_SHARE * w for n, w in weights.items()}
        total = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        total.backward()
        learners = self._learners()
        norm = optim.clip_gradients(learners)
        for optimizer in learners:
            optimizer.step()
        if phase != UNQUANTIZED and not settings.decoder_only:
            metrics["codes/revived"] = update_codebook(
                self.codec.quantizer.semantic_codebook,
                self.codec.quantizer.split(latent_BDT.detach())[0].transpose(1, 2).flatten(0, 1),
                codes_BKT[:, 0].flatten(),
                inputs["revived"],
                inputs["revive_below"],
            )
        metrics |= {f"loss/{name}": value.detach() for name, value in losses.items()}
        return metrics | {"loss/total": total.detach(), GRAD_NORM: norm}

    def _generator(self, step: int, stream: int) -> torch.Generator:
        return device_generator(self.settings.run.seed, step, stream, self.crops.device)

    def _learners(self) -> list[torch.optim.Optimizer]:
        """The optimizers of codec and projections."""
        return [o for name, o in self.state.optimizers.items() if name != "discriminators"]

    def _quantize(
        self, phase: str, latent_BDT: Tensor, inputs: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        """What the decoder reads, codes, and the losses of the latents."""
        quantizer = self.codec.quantizer
        if self.teacher is None:
            codes_BKT = quantizer.encode(latent_BDT)
            return quantizer.decode(codes_BKT), codes_BKT, {}
        draws = [inputs[name] for name in ("semantic_draw", "dither", "acoustic_draw")]
        mixed = phase != UNQUANTIZED
        quantized = quantizer.train_forward(
            latent_BDT,
            QuantizationDraws(*draws),
            semantic_share=0.5 if mixed else 0.0,
            acoustic_shares=(0.5, 0.25) if mixed else (0.0, 0.0),
        )
        semantic_BDT, losses = quantizer.split(latent_BDT)[0], {}
        if mixed:
            losses["commitment"] = quantized.commitment
            book = quantizer.semantic_codebook
            semantic_BDT = straight_through(book, semantic_BDT, quantized.codes_BKT)
        losses["asr"] = objectives.token_loss(
            self.projections["asr"], semantic_BDT, inputs["token"], inputs["share"]
        )
        losses["states"] = objectives.encoder_state_loss(
            self.projections["states"], semantic_BDT, inputs["target"]
        )
        return quantized.latent_BDT, quantized.codes_BKT, losses

    def _for_discriminators(
        self, wave_BS: Tensor, decoded_BS: Tensor, inputs: Tensors
    ) -> tuple[Tensor, Tensor]:
        """Twice as many frames of both as the discriminators see: they look at the later half."""
        count = self.settings.discriminators.frames
        first = (inputs["discriminator_frame"] - count).clamp(min=0) * self.codec.frame_size
        samples = min(2 * count * self.codec.frame_size, wave_BS.shape[1])
        at_S = first + torch.arange(samples, device=wave_BS.device)
        return wave_BS.index_select(1, at_S), decoded_BS.index_select(1, at_S)

    def _step_discriminators(self, real_BS: Tensor, decoded_BS: Tensor) -> Tensor:
        """One step of the discriminators. Returns their loss before it."""
        optimizer = self.state.optimizers["discriminators"]
        optim.clear_gradients([optimizer])
        loss = discriminator_loss(self.discriminators, real_BS, decoded_BS)
        loss.backward()
        optim.clip_gradients([optimizer])
        optimizer.step()
        return loss.detach()


def fresh_codec(config: CodecConfig, seed: int) -> Codec:
    """A codec whose weights are drawn with `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = Codec(config)
    initialize(codec, seed)
    return codec
