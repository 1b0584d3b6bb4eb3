"""How the plan of a run comes about: a survey of the speech, a config, and a calibration."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from voxclone.data.manifest import Manifest
from voxclone.data.validate import LEAST_HOURS
from voxclone.records import parse_record
from voxclone.recover.calibration import WORTH_STEPS, Calibration, calibrate
from voxclone.recover.options import STAGES, Options
from voxclone.recover.plan import (
    Amounts,
    Plan,
    StagePlan,
    estimate,
    free_room,
    total_memory,
)
from voxclone.recover.recipe import Recipe, choose_recipe
from voxclone.recover.runfolder import RunFolder, calibration_key
from voxclone.recover.stages import Context, Done, is_source, training_recipe
from voxclone.recover.survey import TRAIN, Survey, survey_folder, survey_manifest
from voxclone.recover.worth import expectation


@dataclass(frozen=True)
class Found:
    """Results of earlier calls, and the state of every stage in words."""

    results: Mapping[str, Done]
    states: Mapping[str, str]


def make_plan(
    context: Context, run: RunFolder, found: Found, console: Console, *, keep: bool
) -> Plan:
    """The plan of a run. A calibration is kept in the run's folder with `keep`. Raises
    TrainingError where the device is too small for a step."""
    options, release = context.options, context.release
    speech = survey(options, None)
    validated = found.results.get("validate")
    if validated is not None and not validated.result.failed:
        recipe, train = training_recipe(context, found.results)
    else:
        train = survey(options, TRAIN)
        recipe = choose_recipe(release, train, options.overrides)
    calibration = None
    wanted = "train" in options.stages and "train" not in found.results
    if wanted and train.hours >= LEAST_HOURS and train.speakers > 1:
        calibration = calibrated(context, recipe, run, console, keep=keep)
    folder = is_source(options)
    prepared = not folder and Manifest(options.speech).prepared
    amounts = Amounts(speech, train, folder, prepared, os.cpu_count() or 1)
    estimates, planned = estimate(recipe, release, amounts, calibration), []
    for stage in STAGES:
        work, seconds, size = estimates[stage]
        if stage in found.results or stage not in options.stages:
            seconds, size = 0.0, 0.0
        planned.append(StagePlan(stage, work, seconds, size, found.states[stage]))
    return Plan(
        stages=tuple(planned),
        config=recipe.config,
        device=str(context.device),
        memory=None if calibration is None else calibration.memory,
        memory_total=total_memory(context.device),
        free=free_room(options.out),
        expectation=tuple(expectation(train, recipe)),
    )


def survey(options: Options, split: str | None) -> Survey:
    """What the source of speech holds, in a split of it if it is a manifest."""
    if not is_source(options):
        return survey_manifest(options.speech, split)
    found = survey_folder(options.speech)
    if options.corpus is not None:  # its recipe knows texts and speakers, which folders do not show
        return replace(found, labelable=found.clips, clonable=found.speakers, exact=False)
    return found


def calibrated(
    context: Context, recipe: Recipe, run: RunFolder, console: Console, *, keep: bool
) -> Calibration | None:
    """A calibration that is known, or a new one; None where the training is too short for it."""
    config, device = recipe.config, context.device
    if config.run.steps < WORTH_STEPS:
        return None
    key = calibration_key(config.model_dump(mode="json"), run.model, device)
    if key in run.calibrations:
        return parse_record(Calibration, run.calibrations[key], str(run.path))
    console.print(f"Calibrating: some steps of the training on {device}.")
    with TemporaryDirectory() as folder:
        made = calibrate(config, context.release, device, Path(folder))
    run.calibrations[key] = made.model_dump()
    if keep:
        run.save()
    return made
