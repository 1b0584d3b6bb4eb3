"""The loop of a refinement: codes of one recording are optimized, and the best of them are kept.

The codes of the start are evaluated first, so that the result is never worse by the metric of the
selection. Those of a start from nothing are noise and are not kept. The random numbers of a step
depend on the seed and the step alone, so that a resumed run ends with the same codes.

Shapes: S samples, K codebooks, T frames, D latent width.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from voxclone.audio.distance import mel_loss, stft_loss
from voxclone.cloning.refine.decode import decode_in_pieces
from voxclone.cloning.refine.evaluation import (
    Evaluation,
    Job,
    candidates,
    evaluate,
    has_fallen,
    selection_metric,
)
from voxclone.cloning.refine.gain import flow_loss, predict
from voxclone.cloning.refine.parameters import NOTHING, CodeParameters
from voxclone.cloning.refine.settings import RefineSettings
from voxclone.cloning.refine.state import RefineState, job_identity, restore, save
from voxclone.errors import ConfigError
from voxclone.rng import step_generator
from voxclone.tts.tts import TTS

FINAL_SHARE = 0.05
FFTS = (2048, 512, 128)
MEL_SCALES = ((2048, 160), (512, 80), (128, 20))

Progress = Callable[[int, dict[str, float]], None]
"""Is called with the step and its losses."""


@dataclass(frozen=True)
class RefineResult:
    """The best codes [K, T] and all evaluations. `reason` is why the run ended: `done`, or `worse`
    (a metric fell). `skipped` steps had gradients that were not finite; `passed_over` has a
    sentence on each damaged checkpoint."""

    codes_KT: Tensor
    before: Evaluation
    kept: Evaluation
    evaluations: list[Evaluation]
    steps: int
    seconds: float
    reason: Literal["done", "worse"]
    skipped: int
    passed_over: list[str]


def refine_codes(
    job: Job, *, folder: Path | None = None, resume: bool = False, progress: Progress | None = None
) -> RefineResult:
    """Optimize the codes of `job`. Checkpoints go into `folder`; with `resume` the run continues
    from the newest one. Raises ConfigError for a checkpoint of another job, or one that is there
    without `resume`, and TrainingError for codes that cannot be evaluated."""
    settings = job.settings
    if settings.select_by == "gain" and job.gain is None:
        raise ConfigError(
            "To select by gain, the language model and an encoder are needed: select by similarity."
        )
    begun = time.monotonic()
    codes = CodeParameters(job.codec.quantizer, job.start)
    optimizer = torch.optim.Adam(
        [{"params": [codes.delta_TV]}, {"params": [codes.level_CT]}], betas=(0.9, 0.95)
    )
    state = RefineState(codes, optimizer)
    identity, passed_over = "", list[str]()
    if folder is not None:
        identity = job_identity(job)
        passed_over = restore(state, folder, identity, resume=resume)
    if not state.evaluations:
        state.evaluations = [evaluate(job, 0, job.start.codes())]
    before_seconds, targets = state.seconds, _speaker_targets(job)
    fallen = has_fallen(candidates(job, state.evaluations), settings)
    while state.step < settings.steps and not fallen:
        if job.model is not None and state.step % settings.predict_every == 0:
            _predict(job, job.model, codes)
        losses = _train_step(job, state, targets)
        state.step += 1
        last = state.step == settings.steps
        if progress is not None:
            progress(state.step, losses)
        if state.step % settings.evaluate_every == 0 or last:
            state.evaluations.append(evaluate(job, state.step, codes.codes()))
            fallen = has_fallen(candidates(job, state.evaluations), settings)
        if folder is not None and (state.step % settings.save_every == 0 or last or fallen):
            save(state, folder, identity, before_seconds + time.monotonic() - begun)
    kept = max(
        candidates(job, state.evaluations), key=lambda each: selection_metric(each, settings)
    )
    return RefineResult(
        kept.codes_KT,
        before=state.evaluations[0],
        kept=kept,
        evaluations=state.evaluations,
        steps=state.step,
        seconds=before_seconds + time.monotonic() - begun,
        reason="worse" if fallen else "done",
        skipped=state.skipped,
        passed_over=passed_over,
    )


def _train_step(job: Job, state: RefineState, targets: tuple[Tensor, ...]) -> dict[str, float]:
    """One step of the optimizer, unless gradients are not finite; gives the losses."""
    settings, codes = job.settings, state.codes
    done = state.step / max(1, settings.steps - 1)
    share = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * done))
    rates = (settings.semantic_lr, settings.level_lr)
    for group, rate in zip(state.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * share
    losses = _losses(job, state, targets, _temperature(settings, done))
    if not losses:
        raise ConfigError(
            "From nothing `level_distance` is no loss, and no other weight is above 0: set `mel` "
            "or `stft` above 0."
        )
    weights = settings.weights.model_dump()
    total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()
    gradients = [p.grad for p in (codes.delta_TV, codes.level_CT) if p.grad is not None]
    if all(bool(gradient.isfinite().all()) for gradient in gradients):
        state.optimizer.step()
    else:
        state.skipped += 1
    return {name: float(loss.detach()) for name, loss in losses.items()}


def _temperature(settings: RefineSettings, done: float) -> float:
    first, last = settings.temperature
    return first * (last / first) ** done


def _losses(
    job: Job, state: RefineState, targets: tuple[Tensor, ...], temperature: float
) -> dict[str, Tensor]:
    """The losses with a weight, by the names of their weights."""
    settings, weights, codes = job.settings, job.settings.weights, state.codes
    latent_DT = codes.latent(temperature)
    wave_S = decode_in_pieces(job.codec.decoder, latent_DT, settings.piece_frames)
    made_BS, wave_BS, losses = wave_S[None], job.wave_S[None], {}
    if weights.mel:
        losses["mel"] = mel_loss(made_BS, wave_BS, MEL_SCALES, floor=settings.floor)
    if weights.stft:
        losses["stft"] = stft_loss(made_BS, wave_BS, FFTS, floor=settings.floor)
    if weights.speaker:
        parts = job.halves.parts(wave_S, job.codec.frame_size)
        cosines = [
            (job.embedder.embed_batch(part_S[None]) * target_BE).sum()
            for part_S, target_BE in zip(parts, targets, strict=True)
        ]
        losses["speaker"] = 1 - torch.stack(cosines).mean()
    if weights.level_distance and job.start.kind != NOTHING:  # noise is nothing to be near to
        losses["level_distance"] = codes.level_distance()
    if weights.semantic_kl:
        losses["semantic_kl"] = codes.semantic_kl()
    if weights.flow and job.model is not None and codes.state_TD is not None:
        generator = step_generator(settings.seed, state.step)
        losses["flow"] = flow_loss(job.model, codes.state_TD, codes.values(), generator)
    return losses


def _speaker_targets(job: Job) -> tuple[Tensor, ...]:
    """The speaker embedding of each half's own recording; the other half is held out."""
    if not job.settings.weights.speaker:
        return ()
    parts = job.halves.parts(job.wave_S, job.codec.frame_size)
    return tuple(job.embedder.embed_batch(part_S[None]) for part_S in parts)


def _predict(job: Job, model: TTS, codes: CodeParameters) -> None:
    """Update the base of the semantic distribution by the model's prediction of the present codes,
    and the states for the flow loss."""
    found = predict(model, job.halves, codes.codes())
    log_TV = found.log_TV.to(codes.base_TV.device)
    exponent = job.settings.weights.model_exponent
    codes.base_TV = (codes.start.log_TV + exponent * log_TV).log_softmax(dim=-1)
    codes.state_TD = found.state_TD
