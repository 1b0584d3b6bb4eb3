"""Commands that make releases. As in `cli`, what is heavy is imported inside them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from voxclone.errors import QualityError, ReleaseError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from voxclone.release.encoder_file import Brought, Judge
    from voxclone.release.hub import Card
    from voxclone.release.inject import Injected, Plan
    from voxclone.release.release import Release


def inject(
    encoder: Annotated[Path, typer.Argument(help="Encoder file: safetensors, or best_encoder.pt.")],
    model: Annotated[str, typer.Argument(help="Release: directory, Hub id, or mini.")],
    out: Annotated[Path, typer.Argument(help="Folder to make; it must not exist.")],
    merge: Annotated[
        bool, typer.Option("--merge", help="All tensors in one file, not the encoder in its own.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of the release's encoder.")
    ] = False,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copies of the release's files, not hard links.")
    ] = False,
    to_hub: Annotated[
        bool, typer.Option("--to-hub", help="A folder for the Hub: the encoder alone, and a card.")
    ] = False,
    base_model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --to-hub: the base model's Hub id, where MODEL is a directory."),
    ] = None,
    licence: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --to-hub: cc-by-nc-4.0 (default) or cc-by-nc-sa-4.0."),
    ] = None,
    data: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --to-hub: a sentence on what the encoder was trained on."),
    ] = None,
    report: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="With --to-hub: report.json of diagnose or evaluate; may be repeated."),
    ] = None,
    accept_ill: Annotated[
        bool, typer.Option("--accept-ill", help="Take an encoder in which an illness was found.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Make a release with an encoder from one without; the release itself is never written.

    An encoder whose file does not name the code book it was trained for is compared with the
    presets first, and refused (3) if it is ill.
    """
    from rich.console import Console

    from voxclone.io import leftovers
    from voxclone.release import inject as injection
    from voxclone.release.encoder_file import open_brought
    from voxclone.release.release import Release

    console = Console(quiet=quiet or as_json, soft_wrap=True, highlight=False)
    hub_only = {"--base-model": base_model, "--licence": licence, "--data": data,
                "--report": report}  # fmt: skip
    _refuse_together(to_hub, hub_only, {"--merge": merge, "--replace": replace, "--copy": copy})
    release = Release.open(model)
    brought = open_brought(encoder, release)
    for path in leftovers(out):
        console.print(f"[yellow]Left over  {path} is of an interrupted run: remove it.[/yellow]")
    judge = _judge(release, brought, console, accept_ill)
    if to_hub:
        card = _card(model, base_model, licence, data, report or [])
        _publish(release, brought, out, card, judge, console, dry_run=dry_run, as_json=as_json)
        return
    plan = injection.plan_injection(
        release, brought, out, merge=merge, replace=replace, copy=copy
    )  # fmt: skip
    _announce(plan, console)
    if dry_run:
        if as_json:
            print(json.dumps(_planned(plan), indent=1))
        return
    with _moving(console, plan.work) as advance:
        done = injection.inject(plan, judge=judge, advance=advance)
    if as_json:
        print(json.dumps(_planned(plan) | _done(done), indent=1))
    _report(plan, done, console, asked=copy)


def _refuse_together(to_hub: bool, hub_only: dict[str, Any], release_only: dict[str, Any]) -> None:
    unfit = [name for name, value in (release_only if to_hub else hub_only).items() if value]
    if unfit:
        raise UsageError(
            f"{unfit[0]} {'does not go with' if to_hub else 'goes with'} --to-hub: "
            f"{'leave it out' if to_hub else 'add that, or leave it out'}."
        )


def _judge(release: "Release", brought: "Brought", console: "Console", accept_ill: bool) -> "Judge":
    """Examines an encoder of unknown making; one that says where it is from passes."""

    def judge(path: Path) -> list[str]:
        if brought.vouched:
            return []
        from voxclone.evaluate import foreign
        from voxclone.release.release import load_codec

        name = brought.path
        console.print(f"Unknown    {name} does not say for which code book it was trained.")
        try:
            found = foreign.examine(release, load_codec(release, path))
        except ReleaseError as error:
            if not accept_ill:
                raise QualityError(
                    f"{name} cannot be examined: {error} `--accept-ill` takes it all the same."
                ) from None
            console.print(f"[yellow]Examined   not: {error}[/yellow]")
            return [f"not examined: {error}"]
        read = [f"{value.level_error:.1f} by {how}" for how, value in found.readings.items()]
        figures = ", ".join([*read, f"{found.deaf:.1f} of the middle ones"])
        console.print(
            f"Examined   on {len(found.presets)} presets, decoded and encoded again: levels are "
            f"beside theirs by {figures}; semantic codes "
            f"{100 * found.readings[foreign.RUNTIME].semantic:.0f} % the same "
            f"({100 * found.chance.semantic:.0f} % by chance)."
        )
        ill = foreign.findings(found)
        for each in ill:
            console.print(
                f"[bold]{each.name}[/bold]: {each.sentence} ({each.figure}.) {each.remedy}"
            )
        if ill and not accept_ill:
            raise QualityError(
                f"{name} is ill ({', '.join(each.name for each in ill)}) and was not taken: "
                f"{ill[0].sentence} {ill[0].remedy} `--accept-ill` takes it all the same."
            )
        return [f"{each.name}: {each.sentence} ({each.figure}.)" for each in ill]

    return judge


def _announce(plan: "Plan", console: "Console") -> None:
    for name, tensors in plan.rewritten.items():
        console.print(f"Rewrites   {name}: {len(tensors)} tensors of the release, byte for byte.")
    for name in plan.left_out:
        console.print(f"Leaves out {name}")
    console.print(f"Needs      {plan.written / 1e6:,.0f} MB of the disk.")


def _report(plan: "Plan", done: "Injected", console: "Console", *, asked: bool) -> None:
    if done.linked:
        console.print(
            f"Linked     {len(done.linked)} files: one file on the disk with two names. Do not "
            "change them in place, or the original changes, too (`--copy` makes copies)."
        )
    if done.copied:
        why = "as asked" if asked else "hard links cannot be made there"
        console.print(f"Copied     {len(done.copied)} files ({why}).")
    console.print(
        f"Proved     {done.tensors} tensors and {len(done.sha256)} files are the same as in "
        f"{plan.release.path}, by SHA-256; {len(plan.encoder.shapes)} tensors of the encoder."
    )
    console.print(
        "Readers    vLLM-Omni takes recordings (`ref_audio`) with it. mlx-audio refuses a release "
        "with an encoder: leave it the original."
    )
    console.print(f"Wrote      {plan.out}")


def _planned(plan: "Plan") -> dict[str, Any]:
    return {
        "release": str(plan.release.path),
        "encoder": str(plan.encoder.path),
        "out": str(plan.out),
        "carried": plan.carried,
        "rewritten": {name: len(tensors) for name, tensors in plan.rewritten.items()},
        "left_out": plan.left_out,
        "bytes": plan.written,
    }


def _done(done: "Injected") -> dict[str, Any]:
    return {
        "linked": done.linked,
        "copied": done.copied,
        "written": done.written,
        "sha256": done.sha256,
        "tensors_proved": done.tensors,
    }


def _card(
    model: str, base_model: str | None, licence: str | None, data: str | None, reports: list[Path]
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
            f"Say which model {model} is, for the card: --base-model OWNER/NAME, such as "
            "mistralai/Voxtral-4B-TTS-2603."
        )
    # Some of the recordings in the mini release ask for the same licence.
    usual = "cc-by-nc-sa-4.0" if model == MINI else "cc-by-nc-4.0"
    evaluation = "\n\n".join(_evaluation(path) for path in reports) or None
    return Card(base, licence or usual, data, evaluation)


def _evaluation(path: Path) -> str:
    """A report of `diagnose` or `evaluate` as Markdown."""
    from voxclone.evaluate.report.contents import BUILDERS, summary_of, tables_of
    from voxclone.evaluate.report.tables import markdown

    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"The report {path} cannot be read: {error}.") from None
    schema = report.get("schema") if isinstance(report, dict) else None
    if not isinstance(schema, str) or schema.split("/")[0] not in BUILDERS:
        raise UsageError(
            f"{path} is no report of `voxclone diagnose` or `voxclone evaluate`: name the "
            "report.json that they write with `-o`."
        )
    try:
        tables = [markdown(table) for table in tables_of(report)]
        return "\n\n".join([" ".join(summary_of(report)), *tables])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UsageError(f"The report {path} lacks figures ({error!r}): measure again.") from None


def _publish(
    release: "Release",
    brought: "Brought",
    out: Path,
    card: "Card",
    judge: "Judge",
    console: "Console",
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    from voxclone.io import require_new
    from voxclone.release.hub import WEIGHTS, write_hub_folder

    names = [WEIGHTS, "config.json", "README.md"]
    if dry_run:
        require_new(out)
    else:
        write_hub_folder(release, brought, out, card, judge=judge)
    if as_json:
        print(json.dumps({"out": str(out), "written": names, "licence": card.licence}, indent=1))
    if card.data is None:
        console.print("Card       says that the training data are not stated: add --data.")
    if card.evaluation is None:
        console.print("Card       says that nothing was measured: add --report REPORT.JSON.")
    verb = "Would write" if dry_run else "Wrote     "
    console.print(f"{verb} {out}: {', '.join(names)}; licence {card.licence}.")
    if not dry_run:
        console.print(f"Publish    hf upload OWNER/NAME {out}")


@contextmanager
def _moving(console: "Console", total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar of bytes, where somebody looks at it."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    shown = console.is_terminal and not console.quiet
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
