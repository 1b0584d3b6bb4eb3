"""What real speech teaches an encoder through the quantizer and the frozen decoder.

Losses of the waveform that comes back, of a recogniser's states (distillation), and of the latents
alone. What genuine codes and the language model say of real speech is in `encoder`.

Shapes: B batch, S samples, D latent width, T frames, R teacher frames in a codec frame, E teacher
width.
"""

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.codec.model import Codec
from voxclone.data.corpus import Corpus, Crops
from voxclone.device import pick_device
from voxclone.errors import ConfigError
from voxclone.models.ctc_asr import HOP, STRIDE, Recognizer
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.models.whisper import LONGEST_SECONDS
from voxclone.rng import Generators
from voxclone.train import ranks
from voxclone.train.adversary import Adversary, contest
from voxclone.train.asr_distillation import TargetStore, spoken_loss
from voxclone.train.defects import commitment_of_all, squeeze
from voxclone.train.encoder_settings import EncoderTraining
from voxclone.train.losses import after_quantising
from voxclone.train.priors import (
    CodeMeans,
    CodePriors,
    diversity_loss,
    level_loss,
    scale_loss,
    shaping_loss,
    usage_loss,
)
from voxclone.train.ranks import WHOLE, Part
from voxclone.train.run import adamw
from voxclone.train.semantic import Distillation, states_by_frame
from voxclone.train.state import TrainState
from voxclone.train.waveform import Balancer, waveform_losses

THROUGH_THE_WAVEFORM = ("mel", "stft", "magnitude", "l1", "low", "speaker", "feature")


@dataclass(frozen=True)
class Heard:
    """Losses by name, those among them that only tell (the balanced ones are in `waveform`), and
    the encoder's latents [B, D, T]."""

    losses: dict[str, Tensor]
    told: dict[str, Tensor]
    latent_BDT: Tensor


@dataclass
class RealSpeech:
    """The frozen parts and the judges; its learners are in the state of the training."""

    settings: EncoderTraining
    codec: Codec
    priors: CodePriors
    state: TrainState
    adversary: Adversary | None = None
    teacher: Recognizer | None = None
    distillation: nn.Module | None = None
    whisper: TargetStore | None = None
    embedder: Ge2eEmbedder | None = None
    means: CodeMeans | None = None
    balancer: Balancer = field(default_factory=Balancer)

    @classmethod
    def create(
        cls,
        settings: EncoderTraining,
        codec: Codec,
        priors: CodePriors,
        state: TrainState,
        teacher: Recognizer | None,
        whisper: TargetStore | None = None,
    ) -> "RealSpeech":
        """Adds what learns besides the encoder to `state`. Raises ConfigError without a teacher
        (or `whisper`, which is preferred) where the weight `distil` needs one. Draws from the
        global generator of the caller."""
        device = pick_device(settings.run.device)
        adversary: Adversary | None = None
        distillation: nn.Module | None = None
        if settings.weights.feature:
            adversary = Adversary(settings.adversary).to(device)
            rates = settings.optimiser.model_copy(update={"lr": settings.adversary_lr})
            state.modules["adversary"] = adversary
            state.optimisers["adversary"] = adamw(adversary.parameters(), rates)
        if settings.weights.distil:
            width = codec.config.semantic_dim
            if whisper is not None:
                distillation = nn.Linear(width, whisper.teacher.width).to(device)
            elif teacher is not None:
                per_frame = codec.frame_size // (HOP * STRIDE)
                distillation = Distillation(width, teacher.config.dim, per_frame).to(device)
                teacher = teacher.eval().requires_grad_(False).to(device)
            else:
                raise ConfigError("The weight `distil` needs a `teacher` or a `whisper`.")
            state.modules["distillation"] = distillation
            state.optimisers["distillation"] = adamw(distillation.parameters(), settings.optimiser)
        embedder = Ge2eEmbedder.load(str(device)) if settings.weights.speaker else None
        means = None
        if settings.weights.code_means:
            means = CodeMeans(codec.quantizer).to(device)
            state.modules["means"] = means
        return cls(
            settings, codec, priors, state, adversary, teacher, distillation, whisper, embedder,
            means,
        )  # fmt: skip

    def losses(
        self, drawn: Crops, corpus: Corpus, source: Generators, step: int, part: Part = WHOLE
    ) -> Heard:
        """All losses of this kind that have a weight, of crops on the grid of codec frames."""
        settings, weights = self.settings, self.settings.weights
        quantizer = self.codec.quantizer
        wave_BS = drawn.wave_BS.to(next(self.codec.decoder.parameters()).device)
        latent_BDT = self.codec.require_encoder()(wave_BS).float()
        quantized = quantizer.train_forward(
            latent_BDT,
            source,
            semantic_share=settings.semantic_share,
            acoustic_shares=settings.acoustic_shares,
        )
        losses: dict[str, Tensor] = {}
        told: dict[str, Tensor] = {}
        if any(getattr(weights, name) for name in THROUGH_THE_WAVEFORM):
            decoded_BS = self.codec.decoder(quantized.latent_BDT).float()
            losses, told = self._through_the_waveform(decoded_BS, wave_BS, step, part)
        if self.distillation is not None:
            semantic_BDT, _ = quantizer.split(latent_BDT)
            if not settings.defects.before_quantising:
                semantic_BDT = after_quantising(
                    quantizer.semantic_codebook, semantic_BDT, quantized.codes_BKT
                )
            losses["distil"] = self._distil(semantic_BDT, wave_BS, drawn, corpus)
        if weights.commitment:
            losses["commitment"] = (
                commitment_of_all(quantizer, latent_BDT, quantized.codes_BKT)
                if settings.defects.commit_levels
                else quantized.commitment
            )
        every_BDT = latent_BDT  # of all processes, for what looks at the statistics of a batch
        if any((weights.level_prior, weights.usage_prior, weights.code_means, weights.diversity,
                weights.scale, weights.shaping)):  # fmt: skip
            every_BDT = ranks.gather(latent_BDT)
        if weights.level_prior:
            losses["level_prior"] = level_loss(self.priors, quantizer, every_BDT)
        if weights.usage_prior:
            losses["usage_prior"] = usage_loss(self.priors, quantizer, every_BDT)
        if self.means is not None:
            losses["code_means"] = self.means.loss(quantizer, every_BDT, part.count)
        if weights.diversity:
            losses["diversity"] = diversity_loss(quantizer, every_BDT)
        if weights.scale:
            losses["scale"] = scale_loss(quantizer, every_BDT)
        if weights.shaping:
            bounded = settings.defects.double_tanh
            losses["shaping"] = shaping_loss(quantizer, every_BDT, bounded=bounded)
        return Heard(losses, told, latent_BDT)

    def _through_the_waveform(
        self, decoded_BS: Tensor, wave_BS: Tensor, step: int, part: Part
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        settings = self.settings
        faded = settings.fade**step
        given = settings.weights.model_dump()
        given |= {"l1": given["l1"] * faded, "stft": given["stft"] * faded}
        if step % settings.speaker_every:
            given["speaker"] = 0.0
        leaf_BS = decoded_BS.detach().requires_grad_() if settings.balance else decoded_BS
        losses = waveform_losses(
            leaf_BS,
            wave_BS,
            given,
            floor=settings.spectral_floor,
            n_ffts=settings.n_ffts,
            mel_scales=settings.mel_scales,
            embedder=self.embedder,
        )
        told: dict[str, Tensor] = {}
        judged = step >= settings.adversary_from and step % settings.adversary_every == 0
        if self.adversary is not None and judged:
            rates = settings.optimiser.model_copy(update={"lr": settings.adversary_lr})
            judges, steps = self.state.optimisers["adversary"], settings.run.steps
            told["hinge"], losses["feature"] = contest(
                self.adversary, judges, rates, step, steps, wave_BS, leaf_BS, part
            )
            if settings.defects.cut_features:
                told["feature"] = losses.pop("feature").detach()
        if not settings.balance:
            for name in ("l1", "stft"):
                if name in losses:
                    losses[name] = losses[name] * faded
            return losses, told
        # The means live in the state's values, so that they are saved and read with it.
        self.balancer.means = self.state.values.setdefault("balancer", {})
        gradient_BS = self.balancer.gradient(losses, given, leaf_BS)
        told |= {name: loss.detach() for name, loss in losses.items()}
        # A balanced gradient has the same size for each item, however many a part has: the sum over
        # items is the loss, and that of a part counts as often as there are parts.
        return {"waveform": part.all_parts * (decoded_BS * gradient_BS).sum()}, told

    def _distil(
        self, semantic_BDT: Tensor, wave_BS: Tensor, drawn: Crops, corpus: Corpus
    ) -> Tensor:
        if self.whisper is None:
            assert isinstance(self.distillation, Distillation)
            loss: Tensor = self.distillation(semantic_BDT, self._states(wave_BS))
            return loss
        assert isinstance(self.distillation, nn.Linear)
        size = self.codec.frame_size
        targets, starts, rows = [], [], []
        for row, (index, start) in enumerate(zip(drawn.indices, drawn.starts, strict=True)):
            if corpus.length(index) > LONGEST_SECONDS * self.codec.sampling_rate:
                continue
            frames = -(-corpus.length(index) // size)
            clip, wave_S = corpus.clips[index], corpus.wave(index)
            targets.append(self.whisper.targets(wave_S, frames, clip.text, clip.language))
            starts.append(start // size)
            rows.append(row)
        history = self.settings.history_of(self.codec.config)
        return spoken_loss(self.distillation, semantic_BDT[rows], targets, starts, history)

    def _states(self, wave_BS: Tensor) -> Tensor:
        """The teacher's states [B, T, R, E], each of mean 0 and variance 1 over its width."""
        assert self.teacher is not None
        states_BTRE = states_by_frame(self.teacher, wave_BS, self.codec.frame_size)
        states_BTRE = F.layer_norm(states_BTRE, states_BTRE.shape[-1:])
        if self.settings.defects.squeezed_alignment:
            return squeeze(states_BTRE, self.codec.frame_rate)
        return states_BTRE
