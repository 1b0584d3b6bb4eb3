"""Commands on stored voices. As in `cli`, what is heavy is imported inside them."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from voxclone.cli.common import Model, Voices, check_output

voices_app = typer.Typer(no_args_is_help=True, help="Stored voices: list, show, remove, update.")

Name = Annotated[str, typer.Argument(help="Name of a stored voice, or a voice file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@voices_app.command("list")
def list_(voices: Voices = None, as_json: Json = False) -> None:
    """List the stored voices."""
    import json

    from voxclone.voice.store import default_folder, list_voices

    folder = voices if voices is not None else default_folder()
    found = list_voices(folder)
    if as_json:
        rows = [
            {"name": each.name, "path": str(each.path), "problem": each.problem}
            | ({} if each.facts is None else {"facts": each.facts.model_dump()})
            for each in found
        ]
        print(json.dumps(rows, indent=1))
        return
    if not found:
        print(f"No voice is stored in {folder}; `voxclone enroll` makes one.")
    width = max((len(each.name) for each in found), default=0)
    for each in found:
        if each.facts is None:
            print(f"{each.name:{width}}  cannot be used: {each.problem}")
            continue
        consent = each.facts.consent
        print(
            f"{each.name:{width}}  {each.facts.reference_seconds:5.1f} s  consent: {consent.kind}, "
            f"{consent.date}  {each.facts.tool}"
        )


@voices_app.command()
def show(name: Name, voices: Voices = None, as_json: Json = False) -> None:
    """Show what a voice says of itself: consent, origin, and the report of its reference."""
    import json

    from voxclone.voice.file import read_metadata
    from voxclone.voice.store import reference_report

    path = _voice_file(name, voices)
    facts = read_metadata(path)
    if as_json:
        print(json.dumps({"path": str(path), "facts": facts.model_dump()}, indent=1))
        return
    print(f"Voice      {facts.name}, {facts.reference_seconds:.1f} s of speech, by {facts.tool}")
    print(f"File       {path}")
    consent = facts.consent
    print(f"Consent    {consent.kind}, {consent.date}: {consent.statement or 'no statement'}")
    print(f"Licence    {facts.licence}")
    for network, value in facts.likeness.items():
        print(f"Likeness   {value:.2f} ({network})")
    found = reference_report(facts)
    for sentence in found.sentences() if found is not None else ["No report is kept."]:
        print(f"Reference  {sentence}")


@voices_app.command()
def remove(
    names: Annotated[list[str], typer.Argument(help="Names of stored voices.")],
    voices: Voices = None,
) -> None:
    """Delete stored voices. Nothing of them is kept anywhere else."""
    from voxclone.voice.store import default_folder, remove_voice

    for name in names:
        path = remove_voice(voices if voices is not None else default_folder(), name)
        print(f"Removed    {path}")


@voices_app.command()
def update(
    name: Name,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("-o", "--out", help="Voice file to write; the voice's own if not given."),
    ] = None,
    voices: Voices = None,
    model: Model = "mini",
) -> None:
    """Bring a voice to today's format and to the embedding table of a release, by its codes."""
    from voxclone.release.release import Release
    from voxclone.voice.embedding import reembed
    from voxclone.voice.file import load_voice, save_voice

    path = _voice_file(name, voices)
    target = out if out is not None else path
    check_output(target)
    release = Release.open(model)
    voice = load_voice(path)
    made = reembed(voice, release, path)
    save_voice(made, target)
    same = made.facts.table_hash == voice.facts.table_hash
    what = "in today's format" if same else f"with rows for {release.path}"
    print(f"Wrote      {target}, {what}.")


def _voice_file(name: str, voices: Path | None) -> Path:
    from voxclone.voice.store import default_folder, find_stored

    if name.endswith(".safetensors") or Path(name).is_file():
        return Path(name)
    return find_stored(voices if voices is not None else default_folder(), name)
