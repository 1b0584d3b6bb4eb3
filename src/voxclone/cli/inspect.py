"""The command that shows what is in a release."""

from typing import Annotated

import typer

from voxclone.errors import EXIT_USER


def inspect(
    model: Annotated[str, typer.Argument(help="Directory, Hub id, or mini.")] = "mini",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what is in a release: sizes, parts, voices, and whether the encoder is there."""
    import dataclasses
    import json

    from voxclone.release.inspection import describe, inspect_release
    from voxclone.release.release import Release

    found = inspect_release(Release.open(model))
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        print(describe(found))
    if found.problems:
        raise typer.Exit(EXIT_USER)
