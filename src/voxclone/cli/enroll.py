"""The command that makes a voice to keep. As in `cli`, what is heavy is imported inside, and torch
not at all where the same enrolment was made before."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from voxclone.cli.common import Encoder, Model, Quiet, Voices, check_output, open_console
from voxclone.errors import UsageError, VoiceError

if TYPE_CHECKING:
    from rich.console import Console

    from voxclone.cloning.options import EnrolOptions
    from voxclone.release.release import Release
    from voxclone.voice.facts import Consent, VoiceFacts
    from voxclone.voice.file import Voice

JSON_SCHEMA = "voxclone.enrolment/1"

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
        str, typer.Option(help="What makes a crop best: likeness (quick), or gain by the model.")
    ] = "likeness",
    report: ReferenceReport = None,
    quiet: Quiet = False,
) -> None:
    """Turn recordings of one speaker into a voice that is kept."""
    from voxclone.cloning import identity
    from voxclone.release.encoder_file import find_encoder
    from voxclone.release.release import Release
    from voxclone.voice import store
    from voxclone.voice.file import copy_voice, read_facts, save_voice

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
    key = identity.enrolment_identity([str(each) for each in hashes], release, used, options)
    known = store.find_enrolment([path], folder, key) if None not in hashes else None
    same = known == path and _says(read_facts(path), name, given)
    if out is None and path.exists() and not same and not replace:
        raise UsageError(
            f"There is a voice {name!r} in {folder} already, of other recordings, options or "
            "consent: choose another name, or --replace it."
        )
    if known is None:
        made = _make(recordings, release, used, options, name, given, key)
        save_voice(made, path)
        facts = made.facts
    else:
        facts = read_facts(known)
        if not same:
            facts = facts.model_copy(update={"name": name, "consent": given})
            copy_voice(known, path, facts)
    tell_voice(facts, known, console)
    if report is not None:
        write_report(report, facts, path, known)
    console.print(f"{'Kept' if same else 'Wrote':<11}{path}", soft_wrap=True)


def check_options(
    recordings: list[Path],
    name: str,
    consent: str | None,
    statement: str | None,
    values: dict[str, Any],
) -> "tuple[Consent, EnrolOptions]":
    """What was given on the command line. Raises UsageError, before anything is opened."""
    from voxclone.cloning.options import (
        MAX_RECORDINGS,
        EnrolOptions,
        check_consent,
        check_steps,
    )
    from voxclone.config import parse_settings
    from voxclone.errors import ConfigError
    from voxclone.voice.facts import check_name

    if len(recordings) > MAX_RECORDINGS:
        raise UsageError(f"{len(recordings)} recordings are given; {MAX_RECORDINGS} can be used.")
    given = check_consent(consent, statement)
    values = values | {"without": check_steps(values["without"])}
    try:
        check_name(name)
        return given, parse_settings(EnrolOptions, values, "the given options")
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
    options: "EnrolOptions",
    name: str,
    consent: "Consent",
    identity: str,
) -> "Voice":
    from voxclone.cloning.enroll import enroll as make
    from voxclone.cloning.options import read_for
    from voxclone.release.release import load_codec

    read = [read_for(recording, options) for recording in recordings]
    codec = load_codec(release, encoder)
    return make(
        read, release, codec, name=name, consent=consent, options=options, identity=identity,
        measured=True,
    ).voice  # fmt: skip


def _says(facts: "VoiceFacts", name: str, consent: "Consent") -> bool:
    told = facts.consent
    return (facts.name, told.kind, told.statement) == (name, consent.kind, consent.statement)


def tell_voice(facts: "VoiceFacts", known: Path | None, console: "Console") -> None:
    from voxclone.voice.store import stored_report

    if known is not None:
        console.print(f"Known      The same enrolment was made before: {known}", soft_wrap=True)
    found = stored_report(facts)
    for sentence in found.sentences() if found is not None else []:
        console.print(f"Reference  {sentence}", markup=False, highlight=False, soft_wrap=True)
    for network, value in facts.likeness.items():
        console.print(f"Likeness   {value:.2f} to the reference ({network}).")
    consent = f"{facts.consent.kind} ({facts.consent.statement})"
    told = f"Voice      {facts.reference_seconds:.1f} s of codes; consent: {consent}"
    console.print(told, markup=False, highlight=False, soft_wrap=True)


def write_report(report: Path, facts: "VoiceFacts", path: Path, known: Path | None) -> None:
    import json

    from voxclone.io import atomic_file

    values: dict[str, Any] = {
        "schema": JSON_SCHEMA,
        "voice": str(path),
        "known": None if known is None else str(known),
        "facts": facts.model_dump(exclude={"preprocessing"}),
        "reference": facts.preprocessing,
    }
    with atomic_file(report) as file:
        file.write(json.dumps(values, indent=1).encode())
