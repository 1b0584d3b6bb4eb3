"""The loop: codes of one recording optimised, judged on the way, and the best of them kept.

The first judged are the codes of the start, so what is kept is never worse by the judge. All
randomness of a step comes from the seed and the step, so a run that goes on from a checkpoint ends
with the codes of one that was not interrupted.

Shapes: S samples, K code books, T frames, D latent width.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.errors import ConfigError
from voxclone.evaluate.cloned import to_level
from voxclone.evaluate.likeness import Ge2eEmbedder
from voxclone.refine.free import FreeCodes, Start
from voxclone.refine.pieces import decode_in_pieces
from voxclone.refine.reading import GainJudge, Halves, flow_loss, read
from voxclone.refine.settings import RefineSettings
from voxclone.speech.speaker import Speaker
from voxclone.train import checkpoint
from voxclone.train.corpus import step_generator
from voxclone.train.state import load_optimiser, optimiser_tensors
from voxclone.train.waveform import waveform_losses

FINAL_SHARE = 0.05
MEL_SCALES = ((2048, 160), (512, 80), (128, 20))
LEAST_FALL = 1e-3  # a figure that is so little lower has not fallen


@dataclass(frozen=True)
class Judged:
    """Codes [K, T] after so many steps, and what was found: `gain` in nats a frame (None without a
    model), `likeness` of each half to the other one's recording."""

    step: int
    gain: float | None
    likeness: float
    codes_KT: Tensor

    def figures(self) -> dict[str, Any]:
        return {"step": self.step, "gain": self.gain, "likeness": round(self.likeness, 4)}


@dataclass(frozen=True)
class Refined:
    """The best codes, where they came from, and all judgements. `reason` is why it ended: `done`,
    `worse` (it fell) or `interrupted`."""

    codes_KT: Tensor
    before: Judged
    kept: Judged
    judged: list[Judged]
    steps: int
    seconds: float
    reason: str


@dataclass
class Job:
    """What is refined: a recording [S] of whole frames at 24 kHz, a start, and who judges. Without
    `model` nothing is plausible or not, and `halves` need no words."""

    codec: Codec
    wave_S: Tensor
    start: Start
    halves: Halves
    settings: RefineSettings
    model: Speaker | None = None
    gain: GainJudge | None = None
    embedder: Ge2eEmbedder = field(default_factory=Ge2eEmbedder.load)


Progress = Callable[[int, dict[str, float]], None]


def refine_codes(
    job: Job, *, folder: Path | None = None, resume: bool = False, progress: Progress | None = None
) -> Refined:
    """Optimise the codes of `job`; checkpoints go into `folder`, and with `resume` the newest one
    there is gone on from. Raises ConfigError for a checkpoint of another job, or one that is there
    without `resume`."""
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
    judged: list[Judged] = []
    first, before_seconds = 0, 0.0
    if folder is not None:
        found = _find(job, folder, resume)
        if found is not None:
            first, before_seconds = found.step, float(found.values["seconds"])
            judged = _restore(found, free, optimiser)
    if not judged:
        judged = [_judge(job, 0, job.start.codes())]
    reason, step = "done", first
    targets = _targets(job)
    while step < settings.steps:
        if job.model is not None and step % settings.ask_every == 0:
            _ask(job, free)
        told = _step(job, free, optimiser, targets, step)
        step += 1
        if progress is not None:
            progress(step, told)
        if step % settings.judge_every == 0 or step == settings.steps:
            judged.append(_judge(job, step, free.codes()))
            if _has_fallen(judged, settings):
                reason = "worse"
        if folder is not None and (step % settings.save_every == 0 or step == settings.steps):
            seconds = before_seconds + time.monotonic() - begun
            _save(job, folder, step, free, optimiser, judged, seconds)
        if reason == "worse":
            break
    kept = max(judged, key=lambda each: _figure(each, settings))
    seconds = before_seconds + time.monotonic() - begun
    return Refined(kept.codes_KT, judged[0], kept, judged, step, seconds, reason)


def _step(
    job: Job,
    free: FreeCodes,
    optimiser: torch.optim.Optimizer,
    targets: tuple[Tensor, ...],
    step: int,
) -> dict[str, float]:
    settings, weights = job.settings, job.settings.weights
    done = step / max(1, settings.steps - 1)
    hot, cold = settings.temperature
    share = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * done))
    for group, rate in zip(
        optimiser.param_groups, (settings.semantic_rate, settings.level_rate), strict=True
    ):
        group["lr"] = rate * share
    latent_DT = free.latent(hot * (cold / hot) ** done)
    wave_S = decode_in_pieces(job.codec.decoder, latent_DT, settings.piece_frames)
    losses = waveform_losses(
        wave_S[None], job.wave_S[None], {"mel": weights.mel, "stft": weights.stft},
        floor=settings.floor, mel_scales=MEL_SCALES,
    )  # fmt: skip
    if weights.speaker:
        parts = job.halves.parts(wave_S, job.codec.frame_size)
        alike = [
            (job.embedder.embed_batch(part_S[None]) * target_BE).sum()
            for part_S, target_BE in zip(parts, targets, strict=True)
        ]
        losses["speaker"] = 1 - torch.stack(alike).mean()
    if weights.near_levels:
        losses["near_levels"] = free.distance()
    if weights.near_semantic:
        losses["near_semantic"] = free.divergence()
    if weights.likely_levels and job.model is not None and free.state_TD is not None:
        generator = step_generator(settings.seed, step)
        losses["likely_levels"] = flow_loss(job.model, free.state_TD, free.values(), generator)
    given = weights.model_dump()
    total = torch.stack([given[name] * loss for name, loss in losses.items()]).sum()
    optimiser.zero_grad(set_to_none=True)
    total.backward()
    if all(
        bool(p.grad.isfinite().all()) for p in (free.pull_TV, free.level_CT) if p.grad is not None
    ):
        optimiser.step()
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


@torch.no_grad()
def _judge(job: Job, step: int, codes_KT: Tensor) -> Judged:
    size = job.codec.frame_size
    decoded_S = job.codec.decode(codes_KT[None])[0]
    made, heard = job.halves.parts(decoded_S, size), job.halves.parts(job.wave_S, size)
    alike = [_alike(job.embedder, made[i], heard[1 - i]) for i in (0, 1)]
    gain = None if job.gain is None else job.gain(codes_KT)
    return Judged(step, gain, sum(alike) / 2, codes_KT)


def _alike(embedder: Ge2eEmbedder, a_S: Tensor, b_S: Tensor) -> float:
    if float(a_S.abs().max()) < 1e-4:
        return 0.0  # codes that decode to silence are alike to nothing
    return float(embedder.embed(to_level(a_S)) @ embedder.embed(to_level(b_S)))


def _figure(judged: Judged, settings: RefineSettings) -> float:
    """What the judge goes by."""
    if settings.judge == "likeness":
        return judged.likeness
    assert judged.gain is not None
    return judged.gain


def _has_fallen(judged: list[Judged], settings: RefineSettings) -> bool:
    """Whether likeness or gain was below its best at each of the last judgements."""
    rows = [[each.likeness for each in judged]]
    if judged[0].gain is not None:
        rows.append([each.gain or 0.0 for each in judged])
    last = settings.patience
    return len(judged) > last and any(
        all(value < max(row[:-last]) - LEAST_FALL for value in row[-last:]) for row in rows
    )


def job_identity(job: Job) -> str:
    """SHA-256 of what a run depends on: a checkpoint of another recording is not gone on from."""
    digest = hashlib.sha256(job.settings.model_dump_json(exclude={"save_every"}).encode())
    for tensor in (job.wave_S, job.start.log_TV, job.start.level_CT):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(repr(asdict(job.halves)).encode())
    return digest.hexdigest()


def _find(job: Job, folder: Path, resume: bool) -> checkpoint.Checkpoint | None:
    if not resume:
        checkpoint.require_none(folder, "--run")
        return None
    found, complaints = checkpoint.load_latest(folder)
    if found is None:
        if complaints:
            raise ConfigError(complaints[0])
        return None
    if found.values.get("job") != job_identity(job):
        raise ConfigError(
            f"The checkpoints in {folder} are of another recording, start or settings: name "
            "another folder with `--run`."
        )
    return found


def _save(
    job: Job,
    folder: Path,
    step: int,
    free: FreeCodes,
    optimiser: torch.optim.Optimizer,
    judged: list[Judged],
    seconds: float,
) -> None:
    tensors = {"pull": free.pull_TV, "level": free.level_CT, "base": free.base_TV}
    if free.state_TD is not None:
        tensors["state"] = free.state_TD
    tensors |= optimiser_tensors(optimiser, "adam.")
    tensors |= {f"judged.{i}": each.codes_KT for i, each in enumerate(judged)}
    values = {
        "job": job_identity(job),
        "seconds": seconds,
        "judged": [{"step": j.step, "gain": j.gain, "likeness": j.likeness} for j in judged],
    }
    checkpoint.save(folder, checkpoint.Checkpoint(step, tensors, values))


def _restore(
    found: checkpoint.Checkpoint, free: FreeCodes, optimiser: torch.optim.Optimizer
) -> list[Judged]:
    tensors = found.tensors
    with torch.no_grad():
        free.pull_TV.copy_(tensors["pull"])
        free.level_CT.copy_(tensors["level"])
    free.base_TV = tensors["base"].to(free.base_TV.device)
    if "state" in tensors:
        free.state_TD = tensors["state"].to(free.base_TV.device)
    load_optimiser(optimiser, "adam.", tensors)
    return [
        Judged(codes_KT=tensors[f"judged.{i}"], **row)
        for i, row in enumerate(found.values["judged"])
    ]
