"""The state of a refinement, and its checkpoints.

Shapes: K codebooks, T frames.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from voxclone import checkpoint
from voxclone.cloning.refine.evaluation import Evaluation, Job
from voxclone.cloning.refine.parameters import CodeParameters
from voxclone.errors import ConfigError
from voxclone.io import tensor_hash


@dataclass
class RefineState:
    """Codes after `step` steps, and their evaluations. `seconds` were spent before the newest
    checkpoint; `skipped` steps had gradients that were not finite."""

    codes: CodeParameters
    optimizer: torch.optim.Optimizer
    evaluations: list[Evaluation] = field(default_factory=list)
    step: int = 0
    seconds: float = 0.0
    skipped: int = 0


def job_identity(job: Job) -> str:
    """SHA-256 of everything that a run depends on. A checkpoint of another recording, or one with
    metrics of another evaluation, is not resumed."""
    digest = hashlib.sha256(job.settings.model_dump_json(exclude={"save_every"}).encode())
    tensors = [job.wave_S, job.start.log_TV, job.start.level_CT]
    if job.gain is not None:
        tensors += [job.gain.target_KT, *job.gain.presets]
    digest.update(tensor_hash(*tensors).encode())
    there = (asdict(job.halves), job.model is not None, job.gain is not None)
    digest.update(repr(there).encode())
    return digest.hexdigest()


def restore(state: RefineState, folder: Path, identity: str, *, resume: bool) -> list[str]:
    """Load the newest checkpoint in `folder` into `state`, if `resume`. Gives a sentence on each
    damaged one that was skipped. Raises ConfigError for checkpoints of another job, for folders
    with damaged ones only, and for any checkpoint without `resume`."""
    if not resume:
        checkpoint.require_none(folder, "--checkpoints")
        return []
    found, complaints = checkpoint.load_latest(folder)
    if found is None:
        if complaints:
            raise ConfigError(complaints[0])
        return []
    if found.values.get("job") != identity:
        raise ConfigError(
            f"The checkpoints in {folder} are of another recording, start, evaluation or settings: "
            "name another folder with `--checkpoints`."
        )
    tensors, codes = found.tensors, state.codes
    device = codes.level_CT.device
    with torch.no_grad():
        codes.delta_TV.copy_(tensors["delta"])
        codes.level_CT.copy_(tensors["level"])
    codes.base_TV = tensors["base"].to(device)
    if "state" in tensors:
        codes.state_TD = tensors["state"].to(device)
    checkpoint.load_optimizer(state.optimizer, "adam.", tensors)
    state.evaluations = [
        Evaluation(codes_KT=tensors[f"evaluation.{i}"].to(device), **values)
        for i, values in enumerate(found.values["evaluations"])
    ]
    state.step = found.step
    state.seconds, state.skipped = float(found.values["seconds"]), int(found.values["skipped"])
    return complaints


def save(state: RefineState, folder: Path, identity: str, seconds: float) -> None:
    """Write a checkpoint. Raises TrainingError if it cannot be written."""
    codes = state.codes
    tensors = {"delta": codes.delta_TV, "level": codes.level_CT, "base": codes.base_TV}
    if codes.state_TD is not None:
        tensors["state"] = codes.state_TD
    tensors |= checkpoint.optimizer_tensors(state.optimizer, "adam.")
    tensors |= {f"evaluation.{i}": each.codes_KT for i, each in enumerate(state.evaluations)}
    values = {
        "job": identity,
        "seconds": seconds,
        "skipped": state.skipped,
        "evaluations": [
            {"step": each.step, "gain": each.gain, "similarity": each.similarity}
            for each in state.evaluations
        ],
    }
    checkpoint.save(folder, checkpoint.Checkpoint(state.step, tensors, values))
