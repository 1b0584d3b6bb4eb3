"""`voxclone inspect`: the contents of a release."""

import typer

from voxclone.cli.common import Json, Model, UseAdapter
from voxclone.errors import EXIT_USER


def inspect(model: Model = "mini", adapter: UseAdapter = None, as_json: Json = False) -> None:
    """Show the contents of a release: sizes, parts, voices, and whether it has an encoder; or of an
    adapter."""
    import dataclasses
    import json

    from voxclone.release.inspection import describe, inspect_release
    from voxclone.release.release import Release

    if adapter is not None:
        from voxclone.tts.adapter_file import describe_adapter, read_adapter, require_base

        folder = read_adapter(adapter)
        require_base(folder, Release.open(model))
        card = folder.card.model_dump(mode="json", by_alias=True) | {"sha256": folder.sha256}
        print(json.dumps(card, indent=1) if as_json else describe_adapter(folder))
        return
    found = inspect_release(Release.open(model))
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        print(describe(found))
    if found.problems:
        raise typer.Exit(EXIT_USER)
