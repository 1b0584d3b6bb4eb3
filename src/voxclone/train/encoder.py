"""Phase 1: recover the withheld encoder against the frozen decoder and code book.

Three kinds of material, each switched on by its weights (design, section 5):
- *pairs*: codes that the release made, decoded; the encoder must give the codes back;
- *cycle*: codes that the encoder itself gives for real speech, decoded and encoded again; and real
  speech, degraded, which must give the codes of the speech as it was (*robust*);
- *real*: real speech through encoder, quantizer and frozen decoder, held near the statistics of
  genuine codes by priors and by a critic on short runs of codes; where its words are known, it is
  also told what the language model and the encoder together think it says (`channel`), and what
  the model says in its voices is listened to (`cloned`).

A step may be done in parts, by several processes and one after another (`ranks`): what is drawn
for an item depends on seed, step and item alone, and every loss is that of the whole batch.

Shapes: B batch, S samples, D latent width, T frames, K code books, C acoustic channels, Q levels.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from voxclone.codec.model import Codec, Encoder
from voxclone.data.augment import degrade
from voxclone.data.corpus import Corpus, Crops, Subset, step_generator
from voxclone.models.ctc_asr import Recogniser
from voxclone.models.whisper import TargetStore
from voxclone.train.bridge import Bridge, advice, lesson
from voxclone.train.cloned import CloneListener, cloned_loss, draw_scene
from voxclone.train.critic import CodeCritic, criticise
from voxclone.train.encoder_settings import EncoderTraining
from voxclone.train.encoder_start import begin, check
from voxclone.train.log import Log
from voxclone.train.losses import code_losses
from voxclone.train.parts import (
    CLONES,
    CROPS,
    OF_CLONES,
    OF_CROPS,
    Pairs,
    pairs_of,
    sources_of,
)
from voxclone.train.ranks import Part
from voxclone.train.real_speech import RealSpeech
from voxclone.train.run import GRADIENT, apply_gradients
from voxclone.train.state import TrainState
from voxclone.train.told import Told
from voxclone.train.validation import health_of, preset_agreement, semantic_nll, show_health
from voxclone.train.watch import SECONDS
from voxclone.tts.tts import TTS


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
    real: RealSpeech
    state: TrainState
    bridge: Bridge | None = None
    model: TTS | None = None
    told: Told | None = None
    listener: CloneListener | None = None

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
        model: TTS | None = None,
        folder: Path | None = None,
        whisper: TargetStore | None = None,
        start: Encoder | None = None,
        listener: CloneListener | None = None,
    ) -> "EncoderTask":
        """A fresh encoder beside the frozen decoder of `codec` (any encoder it has is not used),
        or one with the weights of `start`.
        The weight `bridge` needs a `teacher`; `told` needs the release's `model` and a `folder`
        for what it says; `cloned` needs a `listener`. Raises ConfigError also where processes
        cannot share the batches."""
        told = None
        if settings.weights.told and model is not None and folder is not None:
            told = Told(settings, model, folder, train)
        check(settings, codec.config, taught=teacher is not None, told=told is not None,
              heard=listener is not None)  # fmt: skip
        begun = begin(settings, codec, genuine, teacher, whisper, start)
        return cls(
            settings, begun.codec, genuine, held_out, corpus, train, begun.critic, begun.real,
            begun.state, begun.bridge, model, told, listener,
        )  # fmt: skip

    def train_step(self, step: int) -> dict[str, Tensor]:
        """One step, in `run.accumulate` parts."""
        settings = self.settings
        if self.told is not None and self.told.is_due(step):
            with self._judged():
                self.told.renew(step, self.codec, self.bridge)
        count = settings.run.accumulate
        rows = [self._part(step, Part(index, count)) for index in range(count)]
        figures = {name: sum((row[name] for row in rows[1:]), rows[0][name]) / count
                   for name in rows[0]}  # fmt: skip
        learners = self.state.learners
        if "distillation" in self.state.optimisers:
            learners.append(self.state.optimisers["distillation"])
        rates, steps = settings.optimiser, settings.run.steps
        norm = apply_gradients(learners, rates, step, steps, loss=figures["loss/total"])
        if torch.isfinite(norm):
            self.state.update_followers()
        items = settings.real_batch + settings.pair_batch * settings.uses_pairs
        seconds = items * settings.frames / self.codec.frame_rate
        return figures | {GRADIENT: norm, SECONDS: torch.tensor(seconds)}

    def _part(self, step: int, part: Part) -> dict[str, Tensor]:
        """The gradients of a part of a step, and its figures."""
        settings, weights = self.settings, self.settings.weights
        losses: dict[str, Tensor] = {}
        told: dict[str, Tensor] = {}
        with torch.autocast(self._device.type, torch.bfloat16, enabled=settings.run.autocast):
            top, device = self.codec.quantizer.levels - 1, self._device
            pairs = pairs_of(self.genuine, settings, top, step, part)
            codes_BKT, mask_BT = pairs.codes_BKT.to(device), pairs.mask_BT.to(device)
            pairs = replace(pairs, codes_BKT=codes_BKT, mask_BT=mask_BT)
            if settings.uses_pairs:
                made_BS = self._decode(pairs.codes_BKT, pairs.sources)
                if self.bridge is not None:
                    self._teach_bridge(self.bridge, made_BS, pairs, step, part)
                latent_BDT = self._encode(made_BS)
                pair = code_losses(
                    self.codec.quantizer, latent_BDT, pairs.codes_BKT, mask_BT=pairs.mask_BT
                )
                losses["pair_semantic"] = pairs.share * pair.semantic
                losses["pair_levels"] = pairs.share * pair.levels
            if step >= settings.real_from:
                real, told = self._real(step, part, pairs)
                losses |= real
        total = sum(getattr(weights, name) * value for name, value in losses.items())
        assert isinstance(total, Tensor)
        (total / part.count).backward()
        if settings.hears_clones(step):
            losses["cloned"], told["clones_hit"] = self._teach_clones(step, part)
            total = total.detach() + weights.cloned * losses["cloned"]
        figures = {f"loss/{name}": value.detach() for name, value in (losses | told).items()}
        return figures | {"loss/total": total.detach()}

    def _real(
        self, step: int, part: Part, pairs: Pairs
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of real speech, and figures that are no losses."""
        settings, weights = self.settings, self.settings.weights
        drawn = self._draw(self._generator(step, CROPS), part.of(settings.real_batch))
        sources = sources_of(settings.run.seed, step, OF_CROPS, part.of(settings.real_batch))
        wave_BS = drawn.wave_BS.to(self._device)
        heard = self.real.losses(drawn, self.corpus, sources, step, part)
        losses, latent_BDT = heard.losses, heard.latent_BDT
        quantizer = self.codec.quantizer
        if self.bridge is not None:
            semantic_BDT, _ = quantizer.split(latent_BDT)
            book = quantizer.semantic_codebook
            losses["bridge"] = advice(self.bridge, book, wave_BS, semantic_BDT)
        if weights.critic:
            losses["critic"] = self._criticise(latent_BDT, pairs, step, part)
        if self.told is not None and self.told.labels:
            losses["told"] = self.told.loss(step, part, self.codec)
        if step < settings.cycle_from:
            return losses, heard.told
        with torch.no_grad():
            own_BKT = quantizer.encode(latent_BDT.detach().float())
        if weights.cycle_semantic or weights.cycle_levels:
            again_BDT = self._encode(self._decode(own_BKT, sources))
            cycle = code_losses(quantizer, again_BDT, own_BKT)
            losses |= {"cycle_semantic": cycle.semantic, "cycle_levels": cycle.levels}
        if weights.robust_semantic or weights.robust_levels:
            degraded_BS = degrade(wave_BS, settings.degradation, sources)
            robust = code_losses(quantizer, self._encode(degraded_BS), own_BKT)
            losses |= {"robust_semantic": robust.semantic, "robust_levels": robust.levels}
        return losses, heard.told

    def _teach_clones(self, step: int, part: Part) -> tuple[Tensor, Tensor]:
        """The gradients of `cloned`, a few items at a time and when those of the other losses are
        done, since a language model's states lie in memory for them; then their mean, and the share
        that was told right."""
        assert self.listener is not None
        settings, listener, own = self.settings, self.listener, part.of(self.settings.clones.items)
        generator = self._generator(step, CLONES)
        scene = draw_scene(listener.cast, settings.clones, self.codec.frame_size, generator)
        found = []
        for first in range(own.start, own.stop, settings.clones.at_once):
            some = slice(first, min(first + settings.clones.at_once, own.stop))
            sources = sources_of(settings.run.seed, step, OF_CLONES, some)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=settings.run.autocast):
                loss, hit = cloned_loss(listener, self.codec, scene, some, sources)
            share = (some.stop - some.start) / (own.stop - own.start)
            (settings.weights.cloned * share * loss / part.count).backward()
            found.append(share * torch.stack([loss.detach(), hit]))
        mean = torch.stack(found).sum(dim=0)
        return mean[0], mean[1]

    def _teach_bridge(
        self, bridge: Bridge, wave_BS: Tensor, pairs: Pairs, step: int, part: Part
    ) -> None:
        book = self.codec.quantizer.semantic_codebook
        loss = pairs.share * lesson(bridge, book, wave_BS, pairs.codes_BKT[:, 0], pairs.mask_BT)
        (loss / part.count).backward()
        if part.is_last:
            rates, steps = self.settings.optimiser, self.settings.run.steps
            apply_gradients([self.state.optimisers["bridge"]], rates, step, steps)

    def _criticise(self, latent_BDT: Tensor, pairs: Pairs, step: int, part: Part) -> Tensor:
        settings, quantizer = self.settings, self.codec.quantizer
        rates = settings.optimiser.model_copy(update={"lr": settings.critic_lr})
        return criticise(
            self.critic, self.state.optimisers["critic"], rates, step, settings.run.steps, part,
            quantizer.decode(pairs.codes_BKT), quantizer.soften(latent_BDT), pairs.mask_BT,
            pairs.share,
        )  # fmt: skip

    def validate(self, step: int, log: Log) -> dict[str, float]:
        """Codes of the held-out presets, decoded and encoded again, and health on real speech; with
        `judged_clips`, what the language model makes of the codes of real speech."""
        with self._judged(), torch.no_grad():
            figures = preset_agreement(self.codec, self.held_out)
            wave_BS = self._draw(step_generator(0, 0, stream=9)).wave_BS.to(self._device)
            health = health_of(self.codec, wave_BS)
            figures |= health.figures
            if self.settings.judged_clips and self.model is not None:
                figures |= semantic_nll(
                    self.codec, self.model, self.train, self.settings.judged_clips
                )
        show_health(health, self.codec, step, log)
        return figures

    @contextmanager
    def _judged(self) -> Iterator[None]:
        """Within, the codec has the encoder that will be written, and it does not learn."""
        encoder = self.codec.require_encoder()
        self.codec.encoder = self.written.eval()
        try:
            yield
        finally:
            self.codec.encoder = encoder.train()

    @property
    def written(self) -> Encoder:
        """The encoder that the training is for: the mean of its weights where one is kept."""
        found = self.state.modules.get("encoder_ema", self.state.modules["encoder"])
        assert isinstance(found, Encoder)
        return found

    def _generator(self, step: int, stream: int) -> torch.Generator:
        return step_generator(self.settings.run.seed, step, stream)

    @property
    def _device(self) -> torch.device:
        return self.codec.quantizer.semantic_codebook.cluster_usage.device

    def _encode(self, wave_BS: Tensor) -> Tensor:
        latent_BDT: Tensor = self.codec.require_encoder()(wave_BS)
        return latent_BDT.float()

    def _draw(self, generator: torch.Generator, part: slice = slice(None)) -> Crops:
        if not hasattr(self, "_weights_N"):
            self._weights_N = self.train.weights(self.settings.evenness)
        size = self.codec.frame_size
        return self.train.crops(
            self.settings.real_batch,
            self.settings.frames * size,
            generator,
            self._weights_N,
            grid=1 if self.settings.whisper is None else size,
            part=part,
        )

    @torch.no_grad()
    def _decode(self, codes_BKT: Tensor, sources: Sequence[torch.Generator]) -> Tensor:
        """Speech of codes, degraded."""
        wave_BS = self.codec.decoder(self.codec.quantizer.decode(codes_BKT)).float()
        return degrade(wave_BS, self.settings.degradation, sources)


def encoder_state(task: EncoderTask) -> dict[str, Tensor]:
    """The trained encoder's tensors under the names of the release."""
    state = task.written.state_dict()
    return {f"audio_tokenizer.{k}": v.detach().cpu().clone() for k, v in state.items()}
