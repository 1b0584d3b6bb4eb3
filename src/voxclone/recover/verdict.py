"""How a recovery ended, and what to do next."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from voxclone.recover.injecting import RELEASE
from voxclone.recover.options import STAGES, Options
from voxclone.recover.stages import Done, best_encoder


@dataclass(frozen=True)
class Verdict:
    """A headline, whether it passed (None: it has not ended), and what to do next: sentences and
    commands."""

    headline: str
    passed: bool | None
    steps: tuple[str, ...]


def verdict_of(options: Options, results: Mapping[str, Done]) -> Verdict:
    """The verdict on a run by the results of its stages."""
    failed = [stage for stage, done in results.items() if done.result.failed]
    if failed:
        first = failed[0]
        headline = f"The gate of `{first}` failed. {results[first].result.failed}"
        return Verdict(headline, False, _after_failure(first, options, results))
    if options.until != STAGES[-1]:
        again = "Give the same command without `--until` to continue."
        return Verdict(f"Done up to `{options.until}`, as asked.", None, (again,))
    voices = results["evaluate"].result
    headline = "The encoder passes every check, and its clones resemble their own speakers."
    if voices.skipped:
        headline = f"The encoder passes every check, but {voices.skipped}."
    return Verdict(headline, True, use_commands(options.out / RELEASE))


def use_commands(release: Path) -> tuple[str, ...]:
    """How to clone and to serve with a release."""
    model = shlex.quote(str(release))
    return (
        f'voxclone clone me.wav "It works." --model {model} -o out.wav',
        f"voxclone serve --model {model}",
    )


def _after_failure(stage: str, options: Options, results: Mapping[str, Done]) -> tuple[str, ...]:
    if stage == "validate":
        return ("Mend the speech, and give the same command again.",)
    if stage == "train":
        return (
            "Give the same command with a smaller rate (`--set optimizer.lr=...`): the training "
            "begins anew, and this one is kept.",
            "Or go on all the same: add `--set run.collapse_check_from=null`.",
        )
    model, path = shlex.quote(options.model), shlex.quote(str(best_encoder(results)))
    out = shlex.quote(str(options.out / RELEASE))
    return (
        "Train longer (`--set run.steps=N` continues this training), or with more speech of more "
        "speakers: give the same command with it.",
        f"Or use this encoder all the same: voxclone inject {path} --model {model} -o {out}",
    )
