"""`voxclone inspect`: the contents of a release."""

import typer

from voxclone.cli.common import Json, Model
from voxclone.errors import EXIT_USER


def inspect(model: Model = "mini", as_json: Json = False) -> None:
    """Show the contents of a release: sizes, parts, voices, and whether it has an encoder."""
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
