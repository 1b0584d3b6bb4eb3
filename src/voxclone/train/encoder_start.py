"""What a recovery begins with: an encoder beside the frozen decoder, what else learns, and the
judges.

Shapes: K code books, T frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.codec.config import CodecConfig
from voxclone.codec.model import Codec, Encoder
from voxclone.device import pick_device
from voxclone.errors import ConfigError
from voxclone.models.ctc_asr import Recognizer
from voxclone.train import ranks
from voxclone.train.asr_distillation import TargetStore
from voxclone.train.bridge import Bridge
from voxclone.train.critic import CodeCritic
from voxclone.train.defects import install, start_plainly
from voxclone.train.encoder_settings import EncoderTraining
from voxclone.train.initial import initialise, match_codebook
from voxclone.train.priors import CodePriors
from voxclone.train.real_speech import RealSpeech
from voxclone.train.run import adamw, learners_of
from voxclone.train.state import TrainState

OWN_SEEDS = 10**9
"""A codec trained from scratch with the same seed may be the one to recover: beginning where its
encoder began would be no recovery."""


@dataclass(frozen=True)
class Start:
    """The codec with the encoder that learns; `state` holds all that learns and its optimisers."""

    codec: Codec
    critic: CodeCritic
    real: RealSpeech
    state: TrainState
    bridge: Bridge | None


def check(
    settings: EncoderTraining, config: CodecConfig, *, taught: bool, told: bool, heard: bool
) -> None:
    """Raise ConfigError for weights whose teacher (`taught`: there is a recogniser; `told`: there
    is a model and a folder for what it says; `heard`: there is a listener to clones) is missing,
    for crops of which nothing counts, and for batches that processes cannot share."""
    weights = settings.weights
    used = {
        "pair_batch": settings.uses_pairs or weights.critic,
        "real_batch": settings.real_from < settings.run.steps,
        "told_batch": weights.told,
    }
    if weights.cloned:
        ranks.check_shares({"clones.items": settings.clones.items}, settings.run.accumulate)
    batches = {name: getattr(settings, name) for name, wanted in used.items() if wanted}
    ranks.check_shares(batches, settings.run.accumulate)
    if weights.bridge and not taught:
        raise ConfigError("The weight `bridge` needs a `teacher`: the folder of a recogniser.")
    if weights.told and not (told and settings.channel.at):
        raise ConfigError("The weight `told` needs steps in `channel.at` to be told at.")
    history = settings.history_of(config)
    if weights.distil and settings.whisper and settings.frames <= history:
        raise ConfigError(
            f"Whisper's targets know the whole clip, so the first {history} frames of a crop from "
            f"within it do not count (`history`), and of {settings.frames} nothing is left: set "
            f"`frames` to more, {4 * history} for example."
        )
    if weights.cloned and not heard:
        raise ConfigError(
            "The weight `cloned` needs a `listener`: mini, ge2e, or the folder of a network that "
            "tells speakers apart."
        )


def begin(
    settings: EncoderTraining,
    codec: Codec,
    genuine: Sequence[Tensor],
    teacher: Recognizer | None,
    whisper: TargetStore | None,
    start: Encoder | None,
) -> Start:
    """Everything fresh by the settings' seed, but the decoder and the quantizer of `codec`, and the
    weights of `start` if that is given. `genuine` are codes [K, T] that the release made."""
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
        if start is not None:
            encoder.load_state_dict(start.state_dict())
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
        if settings.run.ema:
            state.follow("encoder", settings.run.ema)
    return Start(fresh, critic, real, state, bridge)
