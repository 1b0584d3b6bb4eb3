"""Phase 1: recover the withheld encoder against the frozen decoder and code book.

Three kinds of material, each switched on by its weights (design, section 5):
- *pairs*: codes that the release made, decoded; the encoder must give the codes back;
- *cycle*: codes that the encoder itself gives for real speech, decoded and encoded again; and real
  speech, degraded, which must give the codes of the speech as it was (*robust*);
- *real*: real speech through encoder, quantizer and frozen decoder, held near the statistics of
  genuine codes by priors and by a critic on short runs of codes; where its words are known, it is
  also told what the language model and the encoder together think it says (`channel`).

Shapes: B batch, S samples, D latent width, T frames, K code books, C acoustic channels, Q levels.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.errors import ConfigError
from voxclone.evaluate.codes import agreement
from voxclone.evaluate.recogniser import Recogniser
from voxclone.speech.speaker import Speaker
from voxclone.train.augment import degrade
from voxclone.train.bridge import Bridge, advice, lesson
from voxclone.train.channel import (
    Label,
    label_clips,
    load_labels,
    save_labels,
    told_loss,
)
from voxclone.train.corpus import Corpus, Crops, Subset, step_generator
from voxclone.train.critic import CodeCritic, critic_loss, fooling_loss
from voxclone.train.defects import install, start_plainly
from voxclone.train.encoder_settings import EncoderTraining
from voxclone.train.initial import initialise, match_codebook
from voxclone.train.log import Log
from voxclone.train.losses import code_losses, mel_loss
from voxclone.train.pairs import draw_pairs, perturb
from voxclone.train.priors import CodePriors
from voxclone.train.real_speech import RealSpeech
from voxclone.train.run import (
    TrainState,
    adamw,
    apply_gradients,
    learners_of,
    pick_device,
)
from voxclone.train.whisper import TargetStore

OWN_SEEDS = 10**9
"""A codec trained from scratch with the same seed may be the one to recover: beginning where its
encoder began would be no recovery."""


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
    model: Speaker | None = None
    folder: Path | None = None
    labels: dict[int, Label] = field(default_factory=dict)

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
        model: Speaker | None = None,
        folder: Path | None = None,
        whisper: TargetStore | None = None,
    ) -> "EncoderTask":
        """A fresh encoder beside the frozen decoder of `codec` (any encoder it has is not used).
        The weight `bridge` needs a `teacher`; `told` needs the release's `model` and a `folder`
        for what it says."""
        if settings.weights.bridge and teacher is None:
            raise ConfigError("The weight `bridge` needs a `teacher`: the folder of a recogniser.")
        if settings.weights.told and (model is None or folder is None or not settings.channel.at):
            raise ConfigError("The weight `told` needs steps in `channel.at` to be told at.")
        device = pick_device(settings.run.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.run.seed)
            fresh = Codec(codec.config)
            if settings.defects.plain_start:
                start_plainly(fresh.require_encoder())
            else:
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
            if settings.match_codebook:
                match_codebook(encoder, fresh.quantizer.semantic_codebook)
            install(encoder, settings.defects)
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
            real = RealSpeech.create(settings, fresh, priors, state, teacher, whisper)
        return cls(
            settings, fresh, genuine, held_out, corpus, train, critic, real, state, bridge, model,
            folder,
        )  # fmt: skip

    def train_step(self, step: int) -> dict[str, Tensor]:
        settings, weights = self.settings, self.settings.weights
        generator = step_generator(settings.run.seed, step)
        losses: dict[str, Tensor] = {}
        told: dict[str, Tensor] = {}
        if weights.told:
            self._listen(step)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=settings.run.autocast):
            codes_BKT, mask_BT = self._pairs(generator)
            if weights.pair_semantic or weights.pair_levels:
                made_BS = self._decode(codes_BKT, generator)
                if self.bridge is not None:
                    self._teach_bridge(self.bridge, made_BS, codes_BKT[:, 0], mask_BT, step)
                latent_BDT = self._encode(made_BS)
                pair = code_losses(self.codec.quantizer, latent_BDT, codes_BKT, mask_BT=mask_BT)
                losses |= {"pair_semantic": pair.semantic, "pair_levels": pair.levels}
            if step >= settings.real_from:
                real, told = self._real(step, generator, codes_BKT, mask_BT)
                losses |= real
        total = sum(getattr(weights, name) * value for name, value in losses.items())
        assert isinstance(total, Tensor)
        total.backward()
        learners = self.state.learners
        if "distillation" in self.state.optimisers:
            learners.append(self.state.optimisers["distillation"])
        norm = apply_gradients(learners, settings.optimiser, step, settings.run.steps)
        figures = {f"loss/{name}": value for name, value in (losses | told).items()}
        return figures | {"loss/total": total, "other/grad_norm": norm}

    def _real(
        self, step: int, generator: torch.Generator, codes_BKT: Tensor, mask_BT: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of real speech, and figures that are no losses."""
        settings, weights = self.settings, self.settings.weights
        drawn = self._draw(generator)
        wave_BS = drawn.wave_BS.to(self._device)
        heard = self.real.losses(drawn, self.corpus, generator, step)
        losses, latent_BDT = heard.losses, heard.latent_BDT
        quantizer = self.codec.quantizer
        if self.bridge is not None:
            semantic_BDT, _ = quantizer.split(latent_BDT)
            book = quantizer.semantic_codebook
            losses["bridge"] = advice(self.bridge, book, wave_BS, semantic_BDT)
        if weights.critic:
            losses["critic"] = self._criticise(latent_BDT, codes_BKT, mask_BT, step)
        if self.labels:
            losses["told"] = self._told(generator)
        if step < settings.cycle_from:
            return losses, heard.told
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
        return losses, heard.told

    def _listen(self, step: int) -> None:
        """Label clips where the settings say so; a run that goes on reads what it wrote."""
        assert self.model is not None and self.folder is not None
        settings = self.settings.channel
        due = max((at for at in settings.at if at <= step), default=None)
        if due is None or (self.labels and step not in settings.at):
            return
        path = self.folder / f"labels-{due:07d}.safetensors"
        if not path.exists():
            if step != due:
                raise ConfigError(f"{path} is missing, without which the run cannot go on.")
            encoder = self.codec.require_encoder().eval()
            generator = step_generator(self.settings.run.seed, step, stream=3)
            save_labels(
                path,
                label_clips(self.codec, self.bridge, self.model, self.train, settings, generator),
            )
            encoder.train()
        self.labels = load_labels(path)
        known = Subset(self.corpus, sorted(self.labels))
        self._labelled = (known, known.weights(self.settings.evenness))

    def _told(self, generator: torch.Generator) -> Tensor:
        quantizer, size = self.codec.quantizer, self.codec.frame_size
        known, weights_N = self._labelled
        drawn = known.crops(
            self.settings.told_batch,
            self.settings.frames * size,
            generator,
            weights_N,
            grid=size,
        )
        semantic_BDT, _ = quantizer.split(self._encode(drawn.wave_BS.to(self._device)))
        labels = [self.labels[index] for index in drawn.indices]
        starts = [start // size for start in drawn.starts]
        return told_loss(quantizer.semantic_codebook, semantic_BDT, labels, starts)

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
            wave_BS = self._draw(step_generator(0, 0, stream=9)).wave_BS.to(self._device)
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

    def _draw(self, generator: torch.Generator) -> Crops:
        if not hasattr(self, "_weights_N"):
            self._weights_N = self.train.weights(self.settings.evenness)
        size = self.codec.frame_size
        return self.train.crops(
            self.settings.real_batch,
            self.settings.frames * size,
            generator,
            self._weights_N,
            grid=1 if self.settings.whisper is None else size,
        )

    def _pairs(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        settings = self.settings
        codes_BKT, mask_BT = draw_pairs(
            self.genuine, settings.pair_batch, settings.frames, generator
        )
        codes_BKT = perturb(
            codes_BKT,
            generator,
            items=settings.perturb_share,
            levels=settings.perturb_levels,
            top=self.codec.quantizer.levels - 1,
        )
        return codes_BKT.to(self._device), mask_BT.to(self._device)

    @torch.no_grad()
    def _decode(self, codes_BKT: Tensor, generator: torch.Generator) -> Tensor:
        """Speech of codes, degraded."""
        wave_BS = self.codec.decoder(self.codec.quantizer.decode(codes_BKT)).float()
        return degrade(wave_BS, self.settings.degradation, generator)


def encoder_state(task: EncoderTask) -> dict[str, Tensor]:
    """The trained encoder's tensors under the names of the release."""
    state = task.codec.require_encoder().state_dict()
    return {f"audio_tokenizer.{k}": copy.deepcopy(v).cpu() for k, v in state.items()}
