"""A refinement in progress: what it is at, and how that is kept in checkpoints.

Shapes: K code books, T frames.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from voxclone import checkpoint
from voxclone.cloning.refine.free import FreeCodes
from voxclone.cloning.refine.judging import Job, Judged
from voxclone.errors import ConfigError
from voxclone.io import tensor_hash


@dataclass
class Going:
    """Codes after `step` steps and what was found of them. `seconds` were spent before the newest
    checkpoint, `skipped` steps had gradients that were not finite."""

    free: FreeCodes
    optimiser: torch.optim.Optimizer
    judged: list[Judged] = field(default_factory=list)
    step: int = 0
    seconds: float = 0.0
    skipped: int = 0


def job_identity(job: Job) -> str:
    """SHA-256 of what a run depends on: a checkpoint of another recording, or one whose figures
    another judge gave, is not gone on from."""
    digest = hashlib.sha256(job.settings.model_dump_json(exclude={"save_every"}).encode())
    tensors = [job.wave_S, job.start.log_TV, job.start.level_CT]
    if job.gain is not None:
        tensors += [job.gain.truth_KT, *job.gain.strangers]
    digest.update(tensor_hash(*tensors).encode())
    there = (asdict(job.halves), job.model is not None, job.gain is not None)
    digest.update(repr(there).encode())
    return digest.hexdigest()


def restore(going: Going, folder: Path, identity: str, *, resume: bool) -> list[str]:
    """Go on from the newest checkpoint in `folder`, if `resume`; gives a sentence on each that was
    damaged and passed over. Raises ConfigError for checkpoints of another job, for folders that
    hold nothing but damaged ones, and for any checkpoint without `resume`."""
    if not resume:
        checkpoint.require_none(folder, "--run")
        return []
    found, complaints = checkpoint.load_latest(folder)
    if found is None:
        if complaints:
            raise ConfigError(complaints[0])
        return []
    if found.values.get("job") != identity:
        raise ConfigError(
            f"The checkpoints in {folder} are of another recording, start, judge or settings: "
            "name another folder with `--run`."
        )
    tensors, free = found.tensors, going.free
    device = free.level_CT.device
    with torch.no_grad():
        free.pull_TV.copy_(tensors["pull"])
        free.level_CT.copy_(tensors["level"])
    free.base_TV = tensors["base"].to(device)
    if "state" in tensors:
        free.state_TD = tensors["state"].to(device)
    checkpoint.load_optimizer(going.optimiser, "adam.", tensors)
    going.judged = [
        Judged(codes_KT=tensors[f"judged.{i}"].to(device), **row)
        for i, row in enumerate(found.values["judged"])
    ]
    going.step = found.step
    going.seconds, going.skipped = float(found.values["seconds"]), int(found.values["skipped"])
    return complaints


def save(going: Going, folder: Path, identity: str, seconds: float) -> None:
    """Write a checkpoint. Raises TrainingError if it cannot be written."""
    free = going.free
    tensors = {"pull": free.pull_TV, "level": free.level_CT, "base": free.base_TV}
    if free.state_TD is not None:
        tensors["state"] = free.state_TD
    tensors |= checkpoint.optimizer_tensors(going.optimiser, "adam.")
    tensors |= {f"judged.{i}": each.codes_KT for i, each in enumerate(going.judged)}
    values = {
        "job": identity,
        "seconds": seconds,
        "skipped": going.skipped,
        "judged": [{"step": j.step, "gain": j.gain, "likeness": j.likeness} for j in going.judged],
    }
    checkpoint.save(folder, checkpoint.Checkpoint(going.step, tensors, values))
