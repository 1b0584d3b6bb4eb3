"""From a step's material to its losses: what is drawn, encoded, and asked of the encoder.

Every method whose material a step does not have gives None or no losses. Nothing here steps an
optimizer.

Shapes: B batch, S samples, D latent width, T frames, K codebooks, C acoustic channels,
Q quantiles, N clips.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.codec.quantizer import Quantized, draw_quantization
from voxclone.data.augment import degrade
from voxclone.data.corpus import Crops
from voxclone.data.labels import Label
from voxclone.data.speakers import draw_speakers
from voxclone.device import autocast
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.rng import step_generator
from voxclone.train import distributed
from voxclone.train.adversarial import (
    MultiResolutionSTFTDiscriminator,
    discriminator_loss,
    feature_matching_loss,
)
from voxclone.train.asr_distillation import CTCDistillation, WhisperDistillation
from voxclone.train.batch import (
    CROPS,
    OF_CROPS,
    OF_SPEAKERS,
    SPEAKERS,
    MicroBatch,
    PairBatch,
    PairSource,
    SpeechBatch,
    StepBatch,
    item_generators,
)
from voxclone.train.encoder_config import StepValues
from voxclone.train.losses import (
    THROUGH_WAVEFORM,
    code_losses,
    diversity_loss,
    level_prior_loss,
    level_quantiles,
    scale_loss,
    straight_through,
    waveform_losses,
)
from voxclone.train.material import Material, left_context
from voxclone.train.pseudo_labels import PseudoLabels, pseudo_label_loss
from voxclone.train.speaker_loss import speaker_loss

SPEAKER = "speaker_contrastive"
STOCHASTIC: tuple[float, tuple[float, float]] = (0.5, (0.5, 0.25))
WHOLE_CODES: tuple[float, tuple[float, float]] = (1.0, (1.0, 0.0))
"""Shares of semantic and of acoustic latents that are quantized, and dithered, in training."""


@dataclass(frozen=True)
class Pairs:
    """Codes that the release made, their audio, and the encoder's latents of it."""

    batch: PairBatch
    wave_BS: Tensor
    latent_BDT: Tensor


@dataclass(frozen=True)
class Speech:
    """Crops of real speech, the encoder's latents of them, and what quantizer and decoder make of
    these. Losses through the waveform look at `leaf`: the decoded waveform, or where they are
    balanced, a copy at which their gradients end."""

    crops: Crops
    wave_BS: Tensor
    latent_BDT: Tensor
    quantized: Quantized
    decoded_BS: Tensor
    leaf_BS: Tensor


@dataclass
class Objective:
    """The networks that a step's losses come from, and the values that say how."""

    values: StepValues
    material: Material
    codec: Codec
    discriminator: MultiResolutionSTFTDiscriminator | None = None
    distillation: CTCDistillation | WhisperDistillation | None = None
    labels: PseudoLabels | None = None

    def __post_init__(self) -> None:
        values, material = self.values, self.material
        self.weights = values.weights
        self.clip_weights_N = material.speech.weights(values.speaker_balance)
        self.left_context = left_context(values.left_context, self.codec.config)
        self.quantiles_CQ = level_quantiles(self.codec, material.genuine)
        self.pairs = PairSource(
            material.genuine, self.codec.quantizer.levels - 1, values.pair_batch, values.frames,
            values.frames * self.codec.frame_size, values.augmentation,
        )  # fmt: skip
        similarity = self.weights["speaker_similarity"]
        self.embedder = Ge2eEmbedder.load(str(self.device)) if similarity else None

    @property
    def device(self) -> torch.device:
        return self.codec.device

    def autocast(self) -> torch.autocast:
        return autocast(self.device, enabled=self.values.autocast)

    def weights_at(self, step: int) -> dict[str, float]:
        """The weights of a step, of which some decay."""
        decay = self.values.decay**step
        return self.weights | {name: decay * self.weights[name] for name in ("l1", "stft")}

    def encode(self, wave_BS: Tensor) -> Tensor:
        latent_BDT: Tensor = self.codec.require_encoder()(wave_BS)
        return latent_BDT.float()

    def draw_speech(self, generator: torch.Generator, part: slice = slice(None)) -> Crops:
        """Crops of real speech: all are drawn, those of a part are read."""
        values, size = self.values, self.codec.frame_size
        labeled = bool(self.material.bridge_labels)
        on_grid = labeled or isinstance(self.distillation, WhisperDistillation)
        return self.material.speech.crops(
            values.real_batch, values.frames * size, generator, self.clip_weights_N,
            grid=size if on_grid else 1, part=part,
        )  # fmt: skip

    def draw(self, step: int, micro: MicroBatch) -> StepBatch:
        """The pairs (none where they have no weight), the crops of real speech (none before
        `real_from`) and those of labeled clips, each with the past that it needs (none without
        labels), of a micro-batch."""
        values, speech, labeled = self.values, None, None
        seed, frames = values.seed, values.frames
        pairs = self.pairs.draw(seed, step, micro) if values.pair_batch else None
        if step >= values.real_from:
            part = micro.of(values.real_batch)
            crops = self.draw_speech(step_generator(seed, step, CROPS), part)
            generators = item_generators(seed, step, OF_CROPS, part)
            draws = draw_quantization(self.codec.num_codebooks - 1, frames, generators)
            speech = SpeechBatch(crops, draws)
            if self.labels is not None and self.labels.labels:
                labeled = self.labels.crops(
                    step, micro, values.label_batch, frames + self.left_context,
                    self.codec.frame_size,
                )  # fmt: skip
        drawn = StepBatch(pairs, speech, labeled)
        return drawn.pinned() if self.device.type == "cuda" else drawn

    def encode_pairs(self, batch: PairBatch | None) -> Pairs | None:
        """Pairs, the audio degraded so that marks of the decoder teach nothing."""
        if batch is None:
            return None
        with torch.no_grad():
            decoded_BS = self.codec.decoder(self.codec.quantizer.decode(batch.codes_BKT)).float()
            wave_BS = degrade(decoded_BS, batch.degradation)
        return Pairs(batch, wave_BS, self.encode(wave_BS))

    def encode_speech(self, batch: SpeechBatch | None) -> Speech | None:
        """Crops of real speech through encoder, quantizer and decoder."""
        if batch is None:
            return None
        wave_BS = batch.crops.wave_BS
        latent_BDT = self.encode(wave_BS)
        semantic, acoustic = STOCHASTIC if self.values.stochastic_quantization else WHOLE_CODES
        quantized = self.codec.quantizer.train_forward(
            latent_BDT, batch.quantization, semantic_share=semantic, acoustic_shares=acoustic
        )
        decoded_BS = leaf_BS = wave_BS
        if any(self.weights[name] for name in THROUGH_WAVEFORM):
            decoded_BS = leaf_BS = self.codec.decoder(quantized.latent_BDT).float()
        if self.values.balance:
            leaf_BS = decoded_BS.detach().requires_grad_()
        return Speech(batch.crops, wave_BS, latent_BDT, quantized, decoded_BS, leaf_BS)

    def encode_labeled(self, crops: Crops | None) -> tuple[Crops, Tensor] | None:
        """Crops of labeled clips, and their semantic latents."""
        if crops is None:
            return None
        return crops, self.codec.quantizer.split(self.encode(crops.wave_BS))[0]

    def pair_losses(self, pairs: Pairs | None) -> dict[str, Tensor]:
        """The encoder must give the codes of pairs back."""
        if pairs is None:
            return {}
        batch = pairs.batch
        found = code_losses(
            self.codec.quantizer, pairs.latent_BDT, batch.codes_BKT, kept_N=batch.kept_N
        )
        return {
            "pair_semantic": batch.share * found.semantic,
            "pair_levels": batch.share * found.levels,
        }

    def waveform_losses(
        self, step: int, speech: Speech | None, weights: dict[str, float]
    ) -> dict[str, Tensor]:
        """What is decoded must be like the recording."""
        if speech is None:
            return {}
        losses = waveform_losses(
            speech.leaf_BS, speech.wave_BS, weights, floor=self.values.spectral_floor,
            stft_sizes=self.values.stft_sizes, mel_scales=self.values.mel_scales,
            embedder=self.embedder,
        )  # fmt: skip
        if self.discriminator is not None and step >= self.values.discriminators_from:
            losses["feature_matching"] = feature_matching_loss(
                self.discriminator, speech.wave_BS, speech.leaf_BS
            )
        return losses

    def speech_losses(self, speech: Speech | None) -> dict[str, Tensor]:
        """What is asked of the latents of real speech themselves."""
        if speech is None:
            return {}
        weights, quantizer, losses = self.weights, self.codec.quantizer, dict[str, Tensor]()
        book, quantized = quantizer.semantic_codebook, speech.quantized
        semantic_BDT, _ = quantizer.split(speech.latent_BDT)
        if self.distillation is not None:
            stream_BDT = straight_through(book, semantic_BDT, quantized.codes_BKT)
            losses["asr_distillation"] = self.distillation.loss(
                stream_BDT, speech.wave_BS, speech.crops
            )
        if weights["commitment"]:
            losses["commitment"] = quantized.commitment
        every_BDT = speech.latent_BDT  # of all processes, for what looks at statistics of a batch
        if weights["level_prior"] or weights["diversity"] or weights["scale"]:
            every_BDT = distributed.gather(every_BDT)
        if weights["level_prior"]:
            losses["level_prior"] = level_prior_loss(self.quantiles_CQ, quantizer, every_BDT)
        if weights["diversity"]:
            losses["diversity"] = diversity_loss(quantizer, every_BDT)
        if weights["scale"]:
            losses["scale"] = scale_loss(quantizer, every_BDT)
        if self.material.bridge_labels:
            losses["bridge"] = self.label_loss(
                self.material.bridge_labels, speech.crops, semantic_BDT
            )
        return losses

    def label_losses(self, labeled: tuple[Crops, Tensor] | None) -> dict[str, Tensor]:
        """The encoder must give the pseudo-labels of clips whose words are known."""
        if labeled is None or self.labels is None:
            return {}
        crops, semantic_BDT = labeled
        return {"pseudo_label": self.label_loss(self.labels.labels, crops, semantic_BDT)}

    def label_loss(self, labels: Mapping[int, Label], crops: Crops, semantic_BDT: Tensor) -> Tensor:
        """Cross-entropy of the semantic latents of crops with the labels of their clips."""
        starts = [start // self.codec.frame_size for start in crops.starts]
        own, book = [labels[i] for i in crops.indices], self.codec.quantizer.semantic_codebook
        return pseudo_label_loss(book, semantic_BDT, own, starts, self.left_context)

    def discriminator_losses(self, step: int, speech: Speech | None) -> dict[str, Tensor]:
        """What the discriminators minimize; the encoder has no part in it."""
        start = self.values.discriminators_from
        if speech is None or self.discriminator is None or step < start:
            return {}
        loss = discriminator_loss(self.discriminator, speech.wave_BS, speech.decoded_BS)
        return {"discriminator": loss}

    def has_speaker_loss(self, step: int) -> bool:
        """Whether a step has the speaker loss through the language model."""
        after, every = step - self.values.speakers_from, self.values.speakers_every
        return bool(self.weights[SPEAKER]) and after >= 0 and after % every == 0

    def backward_speaker_loss(self, step: int, micro: MicroBatch) -> dict[str, Tensor]:
        """The gradients of the speaker loss, a few items at a time and when those of the other
        losses are done, since a language model's states lie in memory for them; then its mean, and
        its top-1 accuracy over speakers."""
        frozen, values = self.material.speakers, self.values
        seed, chunk = values.seed, values.speakers_at_a_time
        assert frozen is not None
        generator = step_generator(seed, step, SPEAKERS)
        batch = draw_speakers(frozen.pool, frozen.sizes, self.codec.frame_size, generator)
        own, found = micro.of(frozen.sizes.items), []
        for first in range(own.start, own.stop, chunk):
            part = slice(first, min(first + chunk, own.stop))
            sources = item_generators(seed, step, OF_SPEAKERS, part)
            with self.autocast():
                loss, accuracy = speaker_loss(frozen, self.codec, batch, part, sources)
            share = (part.stop - part.start) / (own.stop - own.start)
            (self.weights[SPEAKER] * share * loss / micro.count).backward()
            found.append(share * torch.stack([loss.detach(), accuracy]))
        mean = torch.stack(found).sum(dim=0)
        return {SPEAKER: mean[0], "speaker_accuracy": mean[1]}
