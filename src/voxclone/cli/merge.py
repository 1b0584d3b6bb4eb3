"""`voxclone merge`: an adapter merged into a new release."""

import json
from pathlib import Path
from typing import Annotated

import typer

from voxclone.cli.common import Json, Model, Quiet, open_console, print_adapter_notes, print_line

LOST_SHARE = 0.5


def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder of an adapter of `train adapter`.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to make; it must not exist.")],
    model: Model = "mini",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Merge an adapter into a new release, for programs that read no adapters.

    The original is never written. Enrolled voices are embedded again where the table changes.
    """
    from voxclone.release.release import Release
    from voxclone.tts.adapter_file import read_adapter
    from voxclone.tts.merge import merge_adapter

    console = open_console(quiet or as_json)
    found = read_adapter(adapter)
    print_adapter_notes(found, None, console)
    merged = merge_adapter(found, Release.open(model), out)
    lost = sum(merged.changed.values()) / len(merged.changed)
    if as_json:
        values = {"out": str(out), "changed": merged.changed, "proved": merged.proved}
        print(json.dumps(values | {"adapter": found.sha256}, indent=1))
    print_line(
        console, "Merged",
        f"{len(merged.changed)} tensors; rounding to the release's dtype lost {lost:.1%} of what "
        "the adapter adds.", warning=lost > LOST_SHARE,
    )  # fmt: skip
    print_line(console, "Proved", f"{merged.proved} tensors are those of {model}, by SHA-256.")
    print_line(console, "Wrote", out)
