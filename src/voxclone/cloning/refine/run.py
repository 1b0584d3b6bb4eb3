"""The loop: codes of one recording optimised, judged on the way, and the best of them kept.

The first judged are the codes of the start, so what is kept is never worse by the judge; but those
of a start from nothing are noise, which a judge may like by chance, and are not kept. All
randomness of a step comes from the seed and the step, so a run that goes on from a checkpoint ends
with the codes of one that was not interrupted.

Shapes: S samples, K code books, T frames, D latent width.
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
from voxclone.cloning.refine.free import NOTHING, FreeCodes
from voxclone.cloning.refine.going import Going, job_identity, restore, save
from voxclone.cloning.refine.judging import Job, Judged, candidates, figure, has_fallen, judge
from voxclone.cloning.refine.pieces import decode_in_pieces
from voxclone.cloning.refine.reading import flow_loss, read
from voxclone.errors import ConfigError
from voxclone.rng import step_generator

FINAL_SHARE = 0.05
FFTS = (2048, 512, 128)
MEL_SCALES = ((2048, 160), (512, 80), (128, 20))

Progress = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Refined:
    """The best codes, where they came from, and all judgements. `reason` is why it ended: `done` or
    `worse` (a figure fell). `skipped` steps had gradients that were not finite; `passed_over` has a
    sentence on each damaged checkpoint that was not gone on from."""

    codes_KT: Tensor
    before: Judged
    kept: Judged
    judged: list[Judged]
    steps: int
    seconds: float
    reason: Literal["done", "worse"]
    skipped: int
    passed_over: list[str]


def refine_codes(
    job: Job, *, folder: Path | None = None, resume: bool = False, progress: Progress | None = None
) -> Refined:
    """Optimise the codes of `job`; checkpoints go into `folder`, and with `resume` the newest one
    there is gone on from. Raises ConfigError for a checkpoint of another job, or one that is there
    without `resume`, and TrainingError for codes that cannot be judged."""
    settings = job.settings
    if settings.judge == "gain" and job.gain is None:
        raise ConfigError(
            "To judge by gain, the language model and an encoder are needed: judge by likeness."
        )
    begun = time.monotonic()
    free = FreeCodes(job.codec.quantizer, job.start)
    optimiser = torch.optim.Adam(
        [{"params": [free.pull_TV]}, {"params": [free.level_CT]}], betas=(0.9, 0.95)
    )
    going = Going(free, optimiser)
    identity, passed_over = "", list[str]()
    if folder is not None:
        identity = job_identity(job)
        passed_over = restore(going, folder, identity, resume=resume)
    if not going.judged:
        going.judged = [judge(job, 0, job.start.codes())]
    before_seconds, targets = going.seconds, _targets(job)
    fallen = has_fallen(candidates(job, going.judged), settings)
    while going.step < settings.steps and not fallen:
        if job.model is not None and going.step % settings.ask_every == 0:
            _ask(job, free)
        told = _step(job, going, targets)
        going.step += 1
        last = going.step == settings.steps
        if progress is not None:
            progress(going.step, told)
        if going.step % settings.judge_every == 0 or last:
            going.judged.append(judge(job, going.step, free.codes()))
            fallen = has_fallen(candidates(job, going.judged), settings)
        if folder is not None and (going.step % settings.save_every == 0 or last or fallen):
            save(going, folder, identity, before_seconds + time.monotonic() - begun)
    kept = max(candidates(job, going.judged), key=lambda each: figure(each, settings))
    return Refined(
        kept.codes_KT,
        before=going.judged[0],
        kept=kept,
        judged=going.judged,
        steps=going.step,
        seconds=before_seconds + time.monotonic() - begun,
        reason="worse" if fallen else "done",
        skipped=going.skipped,
        passed_over=passed_over,
    )


def _step(job: Job, going: Going, targets: tuple[Tensor, ...]) -> dict[str, float]:
    settings, weights, free = job.settings, job.settings.weights, going.free
    done = going.step / max(1, settings.steps - 1)
    hot, cold = settings.temperature
    share = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * done))
    for group, rate in zip(
        going.optimiser.param_groups, (settings.semantic_rate, settings.level_rate), strict=True
    ):
        group["lr"] = rate * share
    latent_DT = free.latent(hot * (cold / hot) ** done)
    wave_S = decode_in_pieces(job.codec.decoder, latent_DT, settings.piece_frames)
    made_BS, wave_BS, losses = wave_S[None], job.wave_S[None], {}
    if weights.mel:
        losses["mel"] = mel_loss(made_BS, wave_BS, MEL_SCALES, floor=settings.floor)
    if weights.stft:
        losses["stft"] = stft_loss(made_BS, wave_BS, FFTS, floor=settings.floor)
    if weights.speaker:
        parts = job.halves.parts(wave_S, job.codec.frame_size)
        alike = [
            (job.embedder.embed_batch(part_S[None]) * target_BE).sum()
            for part_S, target_BE in zip(parts, targets, strict=True)
        ]
        losses["speaker"] = 1 - torch.stack(alike).mean()
    if weights.near_levels and job.start.kind != NOTHING:  # noise is nothing to be near to
        losses["near_levels"] = free.distance()
    if weights.near_semantic:
        losses["near_semantic"] = free.divergence()
    if weights.likely_levels and job.model is not None and free.state_TD is not None:
        generator = step_generator(settings.seed, going.step)
        losses["likely_levels"] = flow_loss(job.model, free.state_TD, free.values(), generator)
    if not losses:
        raise ConfigError(
            "From nothing `near_levels` is no loss, and no other weight is above 0: set `mel` or "
            "`stft` above 0."
        )
    given = weights.model_dump()
    total = torch.stack([given[name] * loss for name, loss in losses.items()]).sum()
    going.optimiser.zero_grad(set_to_none=True)
    total.backward()
    gradients = [p.grad for p in (free.pull_TV, free.level_CT) if p.grad is not None]
    if all(bool(gradient.isfinite().all()) for gradient in gradients):
        going.optimiser.step()
    else:
        going.skipped += 1
    return {name: float(loss.detach()) for name, loss in losses.items()}


def _targets(job: Job) -> tuple[Tensor, ...]:
    """The speaker network's view of each half's own recording: the other half stays unseen."""
    if not job.settings.weights.speaker:
        return ()
    parts = job.halves.parts(job.wave_S, job.codec.frame_size)
    return tuple(job.embedder.embed_batch(part_S[None]) for part_S in parts)


def _ask(job: Job, free: FreeCodes) -> None:
    """Take the model's opinion of the codes as they are into the base of the semantic ones, and
    the states after which the levels are to be likely."""
    assert job.model is not None
    opinion = read(job.model, job.halves, free.codes())
    exponent = job.settings.weights.likely_semantic
    log_TV = opinion.log_TV.to(free.base_TV.device)
    free.base_TV = (free.start.log_TV + exponent * log_TV).log_softmax(dim=-1)
    free.state_TD = opinion.state_TD
