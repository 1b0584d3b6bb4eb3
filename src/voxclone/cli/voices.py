"""`voxclone voices`: list, show, remove, update and import stored voices."""

import os
from pathlib import Path
from typing import Annotated

import typer

from voxclone.cli.common import Json, Model, Voices, voices_folder
from voxclone.cli.enroll import ConsentKind, NewName, Replace, Statement, VoiceFile, voice_path
from voxclone.errors import UsageError, VoiceError, printable
from voxclone.outputs import VOICE, check_output

voices_app = typer.Typer(
    no_args_is_help=True, help="List, show, remove, update or import stored voices."
)

Name = Annotated[str, typer.Argument(help="Name of a stored voice, or a voice file.")]


@voices_app.command("list")
def list_(voices: Voices = None, as_json: Json = False) -> None:
    """List the stored voices."""
    import json

    from voxclone.voice.store import list_voices

    folder = voices_folder(voices)
    found = list_voices(folder)
    if as_json:
        rows = [
            {"name": each.name, "path": str(each.path), "problem": each.problem}
            | ({} if each.metadata is None else {"metadata": each.metadata.model_dump()})
            for each in found
        ]
        print(json.dumps(rows, indent=1))
        return
    if not found:
        print(f"No voice is stored in {folder}; `voxclone enroll` makes one.")
    width = max((len(each.name) for each in found), default=0)
    for each in found:
        if each.metadata is None:
            print(f"{each.name:{width}}  cannot be used: {each.problem}")
            continue
        consent = each.metadata.consent
        print(
            f"{each.name:{width}}  {each.metadata.reference_seconds:5.1f} s  "
            f"consent: {consent.kind}, {consent.date}  {each.metadata.tool}"
        )


@voices_app.command()
def show(name: Name, voices: Voices = None, as_json: Json = False) -> None:
    """Show the consent and origin of a voice, and the report of its reference."""
    import json

    from voxclone.voice.file import read_metadata
    from voxclone.voice.store import reference_report

    path = _voice_file(name, voices)
    metadata = read_metadata(path)
    if as_json:
        print(json.dumps({"path": str(path), "metadata": metadata.model_dump()}, indent=1))
        return
    seconds = f"{metadata.reference_seconds:.1f} s of speech"
    print(f"Voice      {metadata.name}, {seconds}, by {metadata.tool}")
    print(f"File       {path}")
    consent = metadata.consent
    print(f"Consent    {consent.kind}, {consent.date}: {consent.statement or 'no statement'}")
    print(f"License    {metadata.license}")
    for network, value in metadata.similarity.items():
        print(f"Similarity {value:.2f} ({network})")
    found = reference_report(metadata)
    for sentence in found.sentences() if found is not None else ["No report is stored."]:
        print(printable(f"Reference  {sentence}"))


@voices_app.command()
def remove(
    names: Annotated[list[str], typer.Argument(help="Names of stored voices.")],
    voices: Voices = None,
) -> None:
    """Delete stored voices; nothing of them remains elsewhere."""
    from voxclone.voice.store import remove_voice

    for name in names:
        path = remove_voice(voices_folder(voices), name)
        print(f"Removed    {path}")


@voices_app.command()
def update(
    name: Name,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Voice file to write; by default the voice's own."),
    ] = None,
    voices: Voices = None,
    model: Model = "mini",
) -> None:
    """Update a voice to the present format and to the embedding table of a release."""
    from voxclone.release.release import Release
    from voxclone.voice.file import Voice
    from voxclone.voice.resolve import reembed

    path = _voice_file(name, voices)
    target = out if out is not None else path
    voice, release = Voice.load(path), Release.open(model)
    check_output(target, VOICE, [release.path])
    made = reembed(voice, release, path)
    made.save(target)
    same = made.metadata.table_hash == voice.metadata.table_hash
    what = "in the present format" if same else f"with the embedding for {release.path}"
    print(f"Wrote      {target}, {what}.")


@voices_app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="Voice of another program: .safetensors, .pt or .gguf.")
    ],
    name: NewName,
    consent: ConsentKind = None,
    statement: Statement = None,
    out: VoiceFile = None,
    voices: Voices = None,
    replace: Replace = False,
    model: Model = "mini",
) -> None:
    """Store a voice that another program keeps; its embeddings become codes."""
    from voxclone.cloning.options import check_consent
    from voxclone.release.release import Release
    from voxclone.runtimes.importing import import_voice
    from voxclone.voice.metadata import check_name

    given = check_consent(consent, statement)
    check_name(name)
    release = Release.open(model)
    folder = voices_folder(voices)
    path = voice_path(out, folder, name, release, None, [file, release.path])
    if out is None and os.path.exists(path) and not replace:
        raise UsageError(
            f"There is a voice {name!r} in {folder} already: choose another name, or --replace it."
        )
    found = import_voice(file, release, name, given)
    found.voice.save(path, new=out is None and not replace)
    seconds = found.voice.metadata.reference_seconds
    print(f"Voice      {name}, {seconds:.1f} s of codes")
    for note in found.notes:
        print(printable(f"Note       {note}"))
    print(f"Wrote      {path}")


def _voice_file(name: str, voices: Path | None) -> Path:
    from voxclone.readers import require_local
    from voxclone.voice.store import find_stored

    require_local(name, VoiceError)
    if name.endswith(".safetensors") or os.path.isfile(name):
        return Path(name)
    return find_stored(voices_folder(voices), name)
