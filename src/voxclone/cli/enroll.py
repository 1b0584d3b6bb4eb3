"""`voxclone enroll`: make a voice and store it. Torch is not imported if the same enrollment was
made before."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxclone.cli.common import (
    Device,
    Encoder,
    Model,
    Quiet,
    UseAdapter,
    Voices,
    open_console,
    open_release,
    print_encoder_notes,
    print_line,
    voices_folder,
)
from voxclone.errors import UsageError, VoiceError
from voxclone.outputs import VOICE, VOICE_REPORT, check_output, refuse_inputs, refuse_outputs

if TYPE_CHECKING:
    from rich.console import Console

    from voxclone.audio.files import Recording
    from voxclone.cloning.options import EnrollOptions
    from voxclone.release.release import Release
    from voxclone.voice.file import Voice
    from voxclone.voice.metadata import Consent, VoiceMetadata

JSON_SCHEMA = "voxclone.enrollment/2"

# Options of `enroll` and `refine`.
Recordings = Annotated[
    list[Path], typer.Argument(help="Recordings of one speaker; 10 to 16 s in all are best.")
]
ConsentKind = Annotated[
    str | None,
    typer.Option(
        "--consent", help="Who allows it: self, written, public-domain or synthetic. Required."
    ),
]
Statement = Annotated[
    str | None, typer.Option(help="The speaker's consent, or the origin, in words. Required.")
]
VoiceFile = Annotated[
    Path | None,
    typer.Option("-o", "--out", help="File to write, instead of a stored voice of that name."),
]
Replace = Annotated[bool, typer.Option("--replace", help="Replace a stored voice of this name.")]
Without = Annotated[
    list[str] | None,
    typer.Option(
        help="Leave out a step of the reference: offset, high-pass, trim, crop, pause, level, "
        "miscount, join, resample, mix. May be repeated."
    ),
]
MaxSeconds = Annotated[
    float | None,
    typer.Option(help="Longest reference; by default 30 s, or 16 s of several recordings."),
]
ReportFile = Annotated[
    Path | None, typer.Option("--report", help="JSON file to write: the report of the reference.")
]

NewName = Annotated[str, typer.Option(help="Name of the voice: a-z, 0-9, - and _.")]


def enroll(
    recordings: Recordings,
    name: NewName,
    consent: ConsentKind = None,
    statement: Statement = None,
    out: VoiceFile = None,
    voices: Voices = None,
    replace: Replace = False,
    model: Model = "mini",
    encoder: Encoder = None,
    without: Without = None,
    max_seconds: MaxSeconds = None,
    level: Annotated[float, typer.Option(help="Level of active speech in dBFS.")] = -20.0,
    high_pass: Annotated[
        float, typer.Option(help="Cutoff in Hz of the filter against rumble, at most 50.")
    ] = 40.0,
    best_of: Annotated[
        int, typer.Option(help="Number of crops of each recording to select from.")
    ] = 1,
    select_by: Annotated[
        str, typer.Option(help="Metric of crops: similarity (quick), or gain by the model.")
    ] = "similarity",
    adapter: UseAdapter = None,
    device: Device = "auto",
    report: ReportFile = None,
    quiet: Quiet = False,
) -> None:
    """Make a voice from recordings of one speaker, and store it."""
    from voxclone.cloning import identity
    from voxclone.cloning.options import read_for
    from voxclone.release.encoder_file import find_encoder
    from voxclone.voice import store
    from voxclone.voice.file import copy_voice, read_metadata

    values = {
        "without": without or [],
        "seconds": max_seconds,
        "level_dbfs": level,
        "high_pass_hz": high_pass,
        "best_of": best_of,
        "select_by": select_by,
    }
    given, options = check_options(recordings, name, consent, statement, values)
    if adapter is not None and (best_of < 2 or select_by != "gain"):
        raise UsageError(
            "--adapter changes how crops are selected by gain, and nothing else of a voice: add "
            "--best-of 4 --select-by gain, or give it to `speak`."
        )
    release, console = open_release(model), open_console(quiet)
    folder = voices_folder(voices)
    inputs = [*recordings, encoder, release.path]
    path = voice_path(out, folder, name, release, report, inputs)
    used = find_encoder(release, encoder)
    print_encoder_notes(encoder, release, console)
    hashes = [identity.file_hash(recording) for recording in recordings]
    read = None
    if None in hashes:  # a pipe, which can be read once, or a file that cannot be read
        read = [read_for(recording, options) for recording in recordings]
        hashes = [recording.sha256 for recording in read]
    key = identity.enrollment_id(
        [str(each) for each in hashes], release, used, options, _adapter_hash(adapter)
    )
    known = store.find_enrollment([path], folder, key)
    same = known == path and _has(read_metadata(path), name, given)
    if out is None and path.exists() and not same and not replace:
        raise UsageError(
            f"There is a voice {name!r} in {folder} already, of other recordings, options or "
            "consent: choose another name, or --replace it."
        )
    may_replace = replace or out is not None
    if known is None:
        read = read or [read_for(recording, options) for recording in recordings]
        made = _make(read, release, used, options, name, given, key, adapter, device)
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
    print_line(console, "Kept" if same else "Wrote", path)


def check_options(
    recordings: list[Path],
    name: str,
    consent: str | None,
    statement: str | None,
    values: dict[str, Any],
) -> "tuple[Consent, EnrollOptions]":
    """The options, checked before anything is opened. Raises UsageError."""
    from voxclone.cloning.options import MAX_RECORDINGS, EnrollOptions, check_consent, check_steps
    from voxclone.records import parse_record
    from voxclone.voice.metadata import check_name

    if len(recordings) > MAX_RECORDINGS:
        raise UsageError(f"{len(recordings)} recordings are given; {MAX_RECORDINGS} can be used.")
    given = check_consent(consent, statement)
    values = values | {"without": check_steps(values["without"])}
    try:
        check_name(name)
    except VoiceError as error:
        raise UsageError(str(error)) from None
    return given, parse_record(EnrollOptions, values, "the options", UsageError)


def voice_path(
    out: Path | None,
    folder: Path,
    name: str,
    release: "Release",
    report: Path | None,
    inputs: "list[Path | None]",
) -> Path:
    """The file of a new voice: `out`, or a stored one in `folder`, which is made. Raises UsageError
    for the name of a preset, and for a voice or report file that cannot be written or is one of the
    inputs."""
    from voxclone.release.release import preset_names
    from voxclone.voice import store

    path = out
    if path is None:
        if name in preset_names(release):
            raise UsageError(
                f"{name!r} is a preset of {release.path}: give the stored voice another name."
            )
        path = store.voice_path(store.open_folder(folder), name)
        refuse_inputs(path, inputs)
    else:
        check_output(path, VOICE, inputs)
    if report is not None:
        check_output(report, VOICE_REPORT, inputs)
        refuse_outputs(report, [path])
    return path


def _make(
    recordings: "list[Recording]",
    release: "Release",
    encoder: Path | None,
    options: "EnrollOptions",
    name: str,
    consent: "Consent",
    enrollment_id: str,
    adapter: Path | None,
    device: str,
) -> "Voice":
    from voxclone.cloning.enroll import enroll as make
    from voxclone.device import pick_device
    from voxclone.release.release import load_codec

    codec = load_codec(release, encoder).to(pick_device(device))
    return make(
        recordings, release, codec, name=name, consent=consent, options=options,
        enrollment_id=enrollment_id, measured=True, adapter=adapter,
    ).voice  # fmt: skip


def _adapter_hash(adapter: Path | None) -> str | None:
    """The hash of an adapter; torch is imported for one only."""
    if adapter is None:
        return None
    from voxclone.tts.adapter_file import read_adapter

    return read_adapter(adapter).sha256


def _has(metadata: "VoiceMetadata", name: str, consent: "Consent") -> bool:
    """Whether a voice has this name and consent."""
    found = metadata.consent
    return (metadata.name, found.kind, found.statement) == (name, consent.kind, consent.statement)


def print_voice(metadata: "VoiceMetadata", known: Path | None, console: "Console") -> None:
    """Print the report of the reference, similarity and consent of a voice."""
    from voxclone.voice.store import reference_report

    if known is not None:
        print_line(console, "Known", f"The same enrollment was made before: {known}")
    found = reference_report(metadata)
    for sentence in found.sentences() if found is not None else []:
        print_line(console, "Reference", sentence)
    for network, value in metadata.similarity.items():
        print_line(console, "Similarity", f"{value:.2f} to the reference ({network}).")
    consent = f"{metadata.consent.kind} ({metadata.consent.statement})"
    print_line(console, "Voice", f"{metadata.reference_seconds:.1f} s of codes; consent: {consent}")


def write_report(report: Path, metadata: "VoiceMetadata", path: Path, known: Path | None) -> None:
    """Write the metadata of a voice and the report of its reference as JSON."""
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
