"""The command that makes a voice to keep. As in `cli`, what is heavy is imported inside, and torch
not at all where the same enrollment was made before."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from voxclone.cli.common import Encoder, Model, Quiet, Voices, check_output, open_console
from voxclone.errors import UsageError, VoiceError

if TYPE_CHECKING:
    from rich.console import Console

    from voxclone.cloning.options import EnrollOptions
    from voxclone.release.release import Release
    from voxclone.voice.file import Voice
    from voxclone.voice.metadata import Consent, VoiceMetadata

JSON_SCHEMA = "voxclone.enrollment/2"

# Options of every command that makes a voice of recordings.
Recordings = Annotated[
    list[Path], typer.Argument(help="Recordings of one speaker; 10 to 16 s in all are best.")
]
Consenting = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Who allows it: self, written, public-domain or synthetic. Required."),
]
Statement = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="The speaker's consent, or the origin, in words. Required."),
]
VoiceFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("-o", "--out", help="Write this file; else the voice is stored by its name."),
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Put it in place of a stored voice of this name.")
]
MostSeconds = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Most seconds to use: 30, or 16 of several recordings, if not given."),
]
ReferenceReport = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--json", help="Write the report of the reference to this file, too."),
]


def enroll(
    recordings: Recordings,
    name: Annotated[str, typer.Option(help="Name of the voice: a-z, 0-9, - and _.")],
    consent: Consenting = None,
    statement: Statement = None,
    out: VoiceFile = None,
    voices: Voices = None,
    replace: Replace = False,
    model: Model = "mini",
    encoder: Encoder = None,
    without: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="Leave out a step: offset, high-pass, trim, crop, pause, level, miscount, join, "
            "resample, mix. May be repeated."
        ),
    ] = None,
    seconds: MostSeconds = None,
    level: Annotated[float, typer.Option(help="Level of active speech in dBFS.")] = -20.0,
    high_pass: Annotated[float, typer.Option(help="Rumble below is taken out; at most 50.")] = 40.0,
    best_of: Annotated[int, typer.Option(help="Choose among so many crops of each.")] = 1,
    choose_by: Annotated[
        str, typer.Option(help="Choose by: similarity (quick), or gain by the model.")
    ] = "similarity",
    report: ReferenceReport = None,
    quiet: Quiet = False,
) -> None:
    """Turn recordings of one speaker into a voice that is kept."""
    from voxclone.cloning import identity
    from voxclone.release.encoder_file import find_encoder
    from voxclone.release.release import Release
    from voxclone.voice import store
    from voxclone.voice.file import copy_voice, read_metadata

    given, options = check_options(recordings, name, consent, statement, {
        "without": without or [],
        "seconds": seconds,
        "level_dbfs": level,
        "high_pass_hz": high_pass,
        "best_of": best_of,
        "choose_by": choose_by,
    })  # fmt: skip
    release, console = Release.open(model), open_console(quiet)
    folder = voices if voices is not None else store.default_folder()
    path = out if out is not None else stored_place(folder, name, release)
    for file in [path, *([report] if report else [])]:
        check_output(file)
    used = find_encoder(release, encoder)
    hashes = [identity.file_hash(recording) for recording in recordings]
    key = identity.enrollment_id([str(each) for each in hashes], release, used, options)
    known = store.find_enrollment([path], folder, key) if None not in hashes else None
    same = known == path and _is_stated(read_metadata(path), name, given)
    if out is None and path.exists() and not same and not replace:
        raise UsageError(
            f"There is a voice {name!r} in {folder} already, of other recordings, options or "
            "consent: choose another name, or --replace it."
        )
    may_replace = replace or out is not None
    if known is None:
        made = _make(recordings, release, used, options, name, given, key)
        made.save(path, new=not may_replace)
        metadata = made.metadata
    else:
        metadata = read_metadata(known)
        if not same:
            metadata = metadata.model_copy(update={"name": name, "consent": given})
            copy_voice(known, path, metadata, new=not may_replace)
    print_voice(metadata, known, console)
    if report is not None:
        write_report(report, metadata, path, known)
    console.print(f"{'Kept' if same else 'Wrote':<11}{path}", soft_wrap=True)


def check_options(
    recordings: list[Path],
    name: str,
    consent: str | None,
    statement: str | None,
    values: dict[str, Any],
) -> "tuple[Consent, EnrollOptions]":
    """What was given on the command line. Raises UsageError, before anything is opened."""
    from voxclone.cloning.options import (
        MAX_RECORDINGS,
        EnrollOptions,
        check_consent,
        check_steps,
    )
    from voxclone.config import parse_settings
    from voxclone.errors import ConfigError
    from voxclone.voice.metadata import check_name

    if len(recordings) > MAX_RECORDINGS:
        raise UsageError(f"{len(recordings)} recordings are given; {MAX_RECORDINGS} can be used.")
    given = check_consent(consent, statement)
    values = values | {"without": check_steps(values["without"])}
    try:
        check_name(name)
        return given, parse_settings(EnrollOptions, values, "the given options")
    except (ConfigError, VoiceError) as error:
        raise UsageError(str(error)) from None


def stored_place(folder: Path, name: str, release: "Release") -> Path:
    """The file of a voice that is to be stored; the folder is made if it is not there."""
    from voxclone.release.release import preset_names
    from voxclone.voice.store import open_folder, voice_path

    if name in preset_names(release):
        raise UsageError(
            f"{name!r} is a preset of {release.path}: give the stored voice another name."
        )
    return voice_path(open_folder(folder), name)


def _make(
    recordings: list[Path],
    release: "Release",
    encoder: Path | None,
    options: "EnrollOptions",
    name: str,
    consent: "Consent",
    enrollment_id: str,
) -> "Voice":
    from voxclone.cloning.enroll import enroll as make
    from voxclone.cloning.options import read_for
    from voxclone.release.release import load_codec

    read = [read_for(recording, options) for recording in recordings]
    codec = load_codec(release, encoder)
    return make(
        read, release, codec, name=name, consent=consent, options=options,
        enrollment_id=enrollment_id,         measured=True,
    ).voice  # fmt: skip


def _is_stated(metadata: "VoiceMetadata", name: str, consent: "Consent") -> bool:
    own = metadata.consent
    return (metadata.name, own.kind, own.statement) == (name, consent.kind, consent.statement)


def print_voice(metadata: "VoiceMetadata", known: Path | None, console: "Console") -> None:
    from voxclone.voice.store import reference_report

    if known is not None:
        console.print(f"Known      The same enrollment was made before: {known}", soft_wrap=True)
    found = reference_report(metadata)
    for sentence in found.sentences() if found is not None else []:
        console.print(f"Reference  {sentence}", markup=False, highlight=False, soft_wrap=True)
    for network, value in metadata.similarity.items():
        console.print(f"Similarity {value:.2f} to the reference ({network}).")
    consent = f"{metadata.consent.kind} ({metadata.consent.statement})"
    summary = f"Voice      {metadata.reference_seconds:.1f} s of codes; consent: {consent}"
    console.print(summary, markup=False, highlight=False, soft_wrap=True)


def write_report(report: Path, metadata: "VoiceMetadata", path: Path, known: Path | None) -> None:
    import json

    from voxclone.io import atomic_file

    values: dict[str, Any] = {
        "schema": JSON_SCHEMA,
        "voice": str(path),
        "known": None if known is None else str(known),
        "metadata": metadata.model_dump(exclude={"preprocessing"}),
        "reference": metadata.preprocessing,
    }
    with atomic_file(report) as file:
        file.write(json.dumps(values, indent=1).encode())
