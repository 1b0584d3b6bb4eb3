"""A whole recovery: look, plan, then stage after stage, and a report.

recover -> open_run -> make_plan -> run_stages -> conclude
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console

from voxclone.data.recipes import check_corpus
from voxclone.device import pick_device
from voxclone.errors import (
    EXIT_OK,
    EXIT_QUALITY,
    ConfigError,
    UsageError,
    VoxcloneError,
    reason,
)
from voxclone.recover import injecting, measuring, stages
from voxclone.recover.options import STAGES, Options
from voxclone.recover.plan import duration, plan_lines, require_memory, require_room
from voxclone.recover.planning import Found, make_plan
from voxclone.recover.progress import RunProgress
from voxclone.recover.report import write_page
from voxclone.recover.runfolder import open_run
from voxclone.recover.stages import Context, Done, Interrupted, Stage
from voxclone.recover.store import Result, begin, finish, look_up
from voxclone.recover.verdict import Verdict, verdict_of
from voxclone.release.release import Release
from voxclone.train.loop import EXIT_INTERRUPTED

LOG = "recover.log"
WORK: dict[str, Stage] = {
    "prepare": Stage(stages.prepare_inputs, stages.prepare),
    "validate": Stage(stages.validate_inputs, stages.validate),
    "pairs": Stage(stages.pairs_inputs, stages.pairs),
    "train": Stage(stages.train_inputs, stages.train),
    "diagnose": Stage(measuring.measured_inputs, measuring.diagnose),
    "evaluate": Stage(measuring.evaluate_inputs, measuring.evaluate),
    "inject": Stage(injecting.inject_inputs, injecting.inject),
}
ENDS = ("validate", "train")
"""A gate that fails here ends the run; after another one, only `inject` is left out."""


@dataclass
class Progressed:
    """What has come of the stages so far."""

    results: dict[str, Done] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, str]:
        """Why gates failed, by stage."""
        return {
            stage: done.result.failed for stage, done in self.results.items() if done.result.failed
        }


def recover(options: Options, console: Console, *, dry_run: bool = False) -> int:
    """Recover the encoder of a release, or with `dry_run` only say how. Returns the exit code: 3
    where a gate has failed.

    Raises VoxcloneError for what a user can mend; the same call then goes on where it stopped.
    """
    device, release = pick_device(options.device), Release.open(options.model)
    if release.report.encoder != "withheld":
        raise ConfigError(
            f"The release {options.model} has an encoder already: clone with it (`voxclone "
            "clone`), or train it further (`voxclone train encoder --init release`)."
        )
    if options.corpus is not None:
        if options.speech.is_file():
            raise UsageError(f"{options.speech} is a manifest: leave out --corpus.")
        check_corpus(options.corpus, ())  # its folder need not be there any more
    run = open_run(options, release)
    context = Context(options, release, run.model, device, run.moved, None)
    found = known_stages(context)
    plan = make_plan(context, run, found, console, keep=not dry_run)
    for line in plan_lines(plan, options.stages):
        console.print(line)
    require_memory(plan)
    require_room(plan, options.out)
    if dry_run:
        return EXIT_OK
    run.save()
    seconds = {each.stage: each.seconds for each in plan.stages}
    with RunProgress(console, options.out / LOG, seconds, options.stages) as progress:
        context = Context(options, release, run.model, device, run.moved, progress)
        try:
            done = run_stages(context, progress)
        except Interrupted:
            progress.say("Interrupted: all steps are saved. Give the same command to continue.")
            return EXIT_INTERRUPTED
        return conclude(options, verdict_of(options, done.results), done, progress)


def known_stages(context: Context) -> Found:
    """What earlier calls have left, up to the first stage that is not done."""
    results: dict[str, Done] = {}
    states = dict.fromkeys(STAGES, "to do")
    for stage in STAGES:
        inputs = WORK[stage].inputs(context, results)
        if isinstance(inputs, str):
            results[stage] = Done(context.run, Result(skipped=inputs))
            states[stage] = f"nothing to do: {inputs}"
            continue
        kept = look_up(context.run, stage, inputs)
        if kept.result is None:
            states[stage] = f"again: {kept.why}" if kept.why else "to do"
            break
        results[stage] = Done(kept.folder, kept.result)
        states[stage] = "kept"
        if kept.result.failed and stage in ENDS:
            break
    return Found(results, states)


def run_stages(context: Context, progress: RunProgress) -> Progressed:
    """Run what is not kept, and say what is done again and why."""
    done = Progressed()
    for stage in context.options.stages:
        if stage == "inject" and done.failed:
            break
        inputs = WORK[stage].inputs(context, done.results)
        if isinstance(inputs, str):
            progress.say(f"{stage}: nothing to do, {inputs}.")
            done.results[stage] = Done(context.run, Result(skipped=inputs))
            done.seconds[stage] = 0.0
            continue
        kept = look_up(context.run, stage, inputs)
        result, spent = kept.result, 0.0
        if result is not None:
            progress.say(f"{stage}: kept, from {duration(kept.seconds)} of work.")
        else:
            progress.say(f"{stage}: {kept.why}." if kept.why else f"{stage}: begins.")
            begin(kept, stage, inputs)
            progress.start(stage)
            begun = time.monotonic()
            with disk_errors(stage):
                result = WORK[stage].make(context, done.results, kept.folder)
                spent = time.monotonic() - begun
                finish(kept, stage, inputs, spent, result)
            progress.say(f"{stage}: done in {duration(spent)}.")
        done.results[stage] = Done(kept.folder, result)
        done.seconds[stage] = kept.seconds + spent
        if result.failed:
            progress.say(f"{stage}: the gate failed. {result.failed}")
            if stage in ENDS:
                break
    return done


@contextmanager
def disk_errors(stage: str) -> Iterator[None]:
    """Turn an error of the disk into a sentence that says how to continue."""
    try:
        yield
    except OSError as error:
        raise VoxcloneError(
            f"The stage `{stage}` stopped: {reason(error)}. What was done is kept: mend "
            "that, and give the same command to continue."
        ) from None


def conclude(options: Options, verdict: Verdict, done: Progressed, progress: RunProgress) -> int:
    """Write the report and say how it ended; returns the exit code."""
    page = write_page(options.out, verdict, done.results, done.seconds)
    progress.say(verdict.headline)
    for step in verdict.steps:
        progress.say(f"  {step}")
    progress.say(f"Report: {page}")
    return EXIT_QUALITY if done.failed else EXIT_OK
