"""`voxclone inject`: a release with an encoder, made of one without."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxclone.cli.common import (
    Json,
    Model,
    Quiet,
    open_console,
    print_leftovers,
    print_line,
    progress_bar,
)
from voxclone.errors import QualityError, ReleaseError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from voxclone.release.encoder_file import ExternalEncoder, Validator
    from voxclone.release.hub import Card
    from voxclone.release.inject import Injected, Plan
    from voxclone.release.release import Release


def inject(
    encoder: Annotated[Path, typer.Argument(help="Encoder file: safetensors, or best_encoder.pt.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to make; it must not exist.")],
    model: Model = "mini",
    merge: Annotated[bool, typer.Option("--merge", help="Write all tensors to one file.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the release's own encoder.")
    ] = False,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy the release's files instead of linking them.")
    ] = False,
    to_hub: Annotated[
        bool, typer.Option("--to-hub", help="Make a folder for the Hub: the encoder and a card.")
    ] = False,
    base_model: Annotated[
        str | None, typer.Option(help="With --to-hub: Hub id of the release, if it is a directory.")
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(help="With --to-hub: cc-by-nc-4.0 (default) or cc-by-nc-sa-4.0."),
    ] = None,
    training_data: Annotated[
        str | None, typer.Option(help="With --to-hub: a sentence on the encoder's training data.")
    ] = None,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(help="With --to-hub: report.json of diagnose or evaluate. May be repeated."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take an encoder that failed a check.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, and do nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a release with an encoder from one without; the original is never written.

    An encoder whose file does not name its codebook is compared with the presets first. If it
    fails a check, it is refused with exit code 3.
    """
    from voxclone.release import inject as injection
    from voxclone.release.encoder_file import open_external_encoder
    from voxclone.release.release import Release

    console = open_console(quiet or as_json)
    hub_only = {
        "--base-model": base_model,
        "--license": license,
        "--training-data": training_data,
        "--evaluation": evaluation,
    }
    _refuse_together(to_hub, hub_only, {"--merge": merge, "--replace": replace, "--copy": copy})
    release = Release.open(model)
    external = open_external_encoder(encoder, release)
    for note in external.notes:
        print_line(console, "Encoder", note)
    print_leftovers(out, console)
    check = partial(_check_encoder, release, external, console, force)
    if to_hub:
        card = _card(model, base_model, license, training_data, evaluation or [])
        _publish(release, external, out, card, check, console, dry_run=dry_run, as_json=as_json)
        return
    plan = injection.plan_injection(
        release, external, out, merge=merge, replace=replace, copy=copy
    )  # fmt: skip
    _print_plan(plan, console)
    if dry_run:
        if as_json:
            print(json.dumps(_plan_json(plan), indent=1))
        return
    done = _inject(plan, check, console)
    if as_json:
        print(json.dumps(_plan_json(plan) | _done_json(done), indent=1))
    _print_done(plan, done, console, asked=copy)


def _refuse_together(to_hub: bool, hub_only: dict[str, Any], release_only: dict[str, Any]) -> None:
    unfit = [name for name, value in (release_only if to_hub else hub_only).items() if value]
    if unfit:
        raise UsageError(
            f"{unfit[0]} {'does not go with' if to_hub else 'goes with'} --to-hub: "
            f"{'leave it out' if to_hub else 'add that, or leave it out'}."
        )


def _check_encoder(
    release: "Release", external: "ExternalEncoder", console: "Console", force: bool, path: Path
) -> list[str]:
    """Compare an encoder of unknown origin with the presets; one with provenance passes. Returns a
    sentence for each failed check. Raises QualityError for them, unless `force`."""
    if external.has_provenance:
        return []
    from voxclone.evaluate import provenance
    from voxclone.release.release import load_codec

    name = external.path
    print_line(console, "Unknown", f"{name} does not name the codebook that it was trained for.")
    try:
        found = provenance.reencode_presets(release, load_codec(release, path))
    except ReleaseError as error:
        if not force:
            raise QualityError(
                f"{name} cannot be checked: {error} `--force` takes it all the same."
            ) from None
        print_line(console, "Checked", f"not: {error}", warning=True)
        return [f"not checked: {error}"]
    errors = [f"{value.level_error:.1f} by {how}" for how, value in found.by_activation.items()]
    print_line(
        console, "Checked",
        f"on {len(found.presets)} presets, decoded and encoded again: mean level errors are "
        f"{', '.join(errors)} ({found.constant_error:.1f} of median levels); "
        f"{100 * found.by_activation[provenance.RUNTIME].semantic:.0f} % of semantic codes are the "
        f"same ({100 * found.chance.semantic:.0f} % by chance).",
    )  # fmt: skip
    failed = provenance.failed_checks(found)
    for each in failed:
        print_line(
            console, "Failed", f"{each.name}: {each.meaning} ({each.measured}.) {each.remedy}"
        )
    if failed and not force:
        raise QualityError(
            f"{name} failed a check ({', '.join(each.name for each in failed)}) and is refused: "
            f"{failed[0].meaning} {failed[0].remedy} `--force` takes it all the same."
        )
    return [f"{each.name}: {each.meaning} ({each.measured}.)" for each in failed]


def _inject(plan: "Plan", check: "Validator", console: "Console") -> "Injected":
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn

    from voxclone.release.inject import inject as write

    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with progress_bar(console, *columns, total=plan.work) as update:
        return write(plan, validate=check, advance=lambda count: update(advance=count))


def _print_plan(plan: "Plan", console: "Console") -> None:
    for name, tensors in plan.rewritten.items():
        sentence = f"{name}: {len(tensors)} tensors of the release, byte for byte."
        print_line(console, "Rewrites", sentence)
    for name in plan.left_out:
        print_line(console, "Leaves out", name)
    print_line(console, "Needs", f"{plan.written / 1e6:,.0f} MB of the disk.")


def _print_done(plan: "Plan", done: "Injected", console: "Console", *, asked: bool) -> None:
    if done.linked:
        print_line(
            console, "Linked",
            f"{len(done.linked)} files: one file on the disk with two names. Do not change them in "
            "place, or the original changes, too (`--copy` makes copies).",
        )  # fmt: skip
    if done.copied:
        why = "as asked" if asked else "hard links cannot be made there"
        print_line(console, "Copied", f"{len(done.copied)} files ({why}).")
    print_line(
        console, "Proved",
        f"{done.tensors} tensors and {len(done.sha256)} files are the same as in "
        f"{plan.release.path}, by SHA-256; {len(plan.encoder.shapes)} tensors of the encoder.",
    )  # fmt: skip
    print_line(
        console, "Readers",
        "vLLM-Omni takes recordings (`ref_audio`) with it. mlx-audio refuses a release with an "
        "encoder: leave it the original.",
    )  # fmt: skip
    print_line(console, "Wrote", plan.out)


def _plan_json(plan: "Plan") -> dict[str, Any]:
    return {
        "release": str(plan.release.path),
        "encoder": str(plan.encoder.path),
        "out": str(plan.out),
        "carried": plan.carried,
        "rewritten": {name: len(tensors) for name, tensors in plan.rewritten.items()},
        "left_out": plan.left_out,
        "bytes": plan.written,
    }


def _done_json(done: "Injected") -> dict[str, Any]:
    return {
        "linked": done.linked,
        "copied": done.copied,
        "written": done.written,
        "sha256": done.sha256,
        "tensors_proved": done.tensors,
    }


def _card(
    model: str,
    base_model: str | None,
    license: str | None,
    training_data: str | None,
    reports: list[Path],
) -> "Card":
    from voxclone.release.hub import Card
    from voxclone.release.release import HUB_ID, MINI

    base = base_model
    if base is None and model == MINI:
        base = "the mini release of voxclone"
    if base is None and HUB_ID.fullmatch(model) and not Path(model).exists():
        base = model
    if base is None:
        raise UsageError(
            f"The card needs the Hub id of {model}: add --base-model OWNER/NAME, such as "
            "mistralai/Voxtral-4B-TTS-2603."
        )
    # Some of the recordings in the mini release ask for the same license.
    default = "cc-by-nc-sa-4.0" if model == MINI else "cc-by-nc-4.0"
    evaluation = "\n\n".join(_markdown(path) for path in reports) or None
    return Card(base, license or default, training_data, evaluation)


def _markdown(path: Path) -> str:
    """A report of `diagnose` or `evaluate` as Markdown. Raises UsageError for anything else."""
    from voxclone.cli.report import require_values
    from voxclone.evaluate.report.contents import TABLES, tables_of
    from voxclone.evaluate.report.summaries import summary_of
    from voxclone.evaluate.report.tables import markdown
    from voxclone.readers import read_json

    report = read_json(path, UsageError, "The report")
    schema = report.get("schema") if isinstance(report, dict) else None
    if not isinstance(schema, str) or schema.split("/")[0] not in TABLES:
        raise UsageError(
            f"{path} is no report of `voxclone diagnose` or `voxclone evaluate`: name the "
            "report.json that they write with `-o`."
        )
    require_values(report, path)
    tables = [markdown(table) for table in tables_of(report)]
    return "\n\n".join([" ".join(summary_of(report)), *tables])


def _publish(
    release: "Release",
    external: "ExternalEncoder",
    out: Path,
    card: "Card",
    check: "Validator",
    console: "Console",
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    from voxclone.io import require_new
    from voxclone.release.hub import WRITTEN, write_hub_folder

    names = list(WRITTEN)
    if dry_run:
        require_new(out)
    else:
        write_hub_folder(release, external, out, card, validate=check)
    if as_json:
        print(json.dumps({"out": str(out), "written": names, "license": card.license}, indent=1))
    if card.data is None:
        sentence = "without the training data: add --training-data."
        print_line(console, "Card", sentence)
    if card.evaluation is None:
        print_line(console, "Card", "without an evaluation: add --evaluation REPORT.JSON.")
    files = f"{out}: {', '.join(names)}; license {card.license}."
    print_line(console, "Would write" if dry_run else "Wrote", files)
    if not dry_run:
        print_line(console, "Publish", f"hf upload OWNER/NAME {out}")
