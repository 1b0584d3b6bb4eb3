"""The command line. Everything heavy is imported inside the commands, so that `--help` is quick."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from voxclone.cli_common import (
    Encoder,
    Model,
    Quiet,
    Voices,
    check_output,
    choose_voice,
    open_console,
)
from voxclone.cli_data import data_app
from voxclone.cli_enroll import enroll
from voxclone.cli_evaluate import diagnose, evaluate_app
from voxclone.cli_release import inject
from voxclone.cli_runtimes import export, verify
from voxclone.cli_voices import voices_app
from voxclone.errors import EXIT_USER, AudioError, UsageError, VoxcloneError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from voxclone.audio.reference import Reference
    from voxclone.cloning.enroll import Enrolled
    from voxclone.release.archive import Release
    from voxclone.speech.speaker import Speaker, Speech

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Voice cloning for Voxtral TTS: recover the encoder, make voices, speak.",
)
mini_app = typer.Typer(no_args_is_help=True, help="Make the mini release.")
train_app = typer.Typer(no_args_is_help=True, help="Train what a release lacks.")
app.add_typer(train_app, name="train")
app.add_typer(mini_app, name="mini")

Text = Annotated[str, typer.Argument(help="What to say; - reads standard input.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Sound file to write (.wav, .flac, ...).")]
Seed = Annotated[Optional[int], typer.Option(help="Same seed, same speech.")]  # noqa: UP045
Cfg = Annotated[float, typer.Option(help="Guidance: 1.2 suits clean voices, more noisy ones.")]
Changed = Annotated[
    bool, typer.Option("--changed", help="Go on with values that the checkpoint was not made with.")
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="Override a value of the config, such as run.steps=100."),
]


def main() -> None:
    """Entry point: errors that a user can mend are one sentence and an exit code."""
    try:
        app()
    except VoxcloneError as error:
        print(f"voxclone: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("voxclone: interrupted.", file=sys.stderr)
        sys.exit(EXIT_USER)


@app.command()
def clone(
    reference: Annotated[Path, typer.Argument(help="A recording of 2 to 30 s of one speaker.")],
    text: Text,
    out: Out,
    model: Model = "mini",
    encoder: Encoder = None,
    seed: Seed = None,
    cfg: Cfg = 1.2,
    quiet: Quiet = False,
) -> None:
    """Say a text in the voice of a recording."""
    from voxclone.release.archive import Release
    from voxclone.release.encoders import open_codec
    from voxclone.speech.speaker import Speaker
    from voxclone.voice.file import Consent

    check_output(out)
    said, console = _text(text), open_console(quiet)
    release = Release.open(model)
    codec = open_codec(release, encoder)
    consent = Consent(kind="unstated", statement="made and used at once by `voxclone clone`")
    enrolled = _enroll(reference, release, codec, "clone", consent, console)
    speaker = Speaker.load(release, codec=codec)
    _speak(speaker, said, enrolled.voice.rows_ND, out, seed, cfg, console, enrolled.reference)


app.command()(enroll)
app.add_typer(voices_app, name="voices")


@app.command()
def speak(
    text: Text,
    voice: Annotated[str, typer.Option(help="Stored voice, preset, or voice file.")],
    out: Out,
    model: Model = "mini",
    voices: Voices = None,
    seed: Seed = None,
    cfg: Cfg = 1.2,
    quiet: Quiet = False,
) -> None:
    """Say a text with a stored voice, a preset or a voice file."""
    from voxclone.release.archive import Release
    from voxclone.speech.speaker import Speaker

    check_output(out)
    said, console = _text(text), open_console(quiet)
    release = Release.open(model)
    rows_ND = choose_voice(voice, release, voices, console).rows_ND
    speaker = Speaker.load(release)
    _speak(speaker, said, rows_ND, out, seed, cfg, console, None)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="Directory, Hub id, or mini.")] = "mini",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what is in a release: sizes, parts, voices, and whether the encoder is there."""
    import dataclasses
    import json

    from voxclone.release.archive import Release
    from voxclone.release.inspection import describe, inspect_release

    found = inspect_release(Release.open(model))
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        print(describe(found))
    if found.problems:
        raise typer.Exit(EXIT_USER)


app.command()(diagnose)
app.command()(export)
app.command()(verify)
app.command()(inject)
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(data_app, name="data")


@train_app.command("encoder")
def train_encoder(
    config: Annotated[Path, typer.Argument(help="For example configs/encoder/mini.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    resume: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="`auto` goes on from the newest checkpoint in the folder."),
    ] = None,
    changed: Changed = False,
    start: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--from", help="Go on from an encoder: a file, or `release` for its own."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="From nothing, though the release has an encoder.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Recover the withheld encoder of a release. On many GPUs: `torchrun --nproc-per-node 8 -m
    voxclone train encoder ...`; the batches of the config are those of all together."""
    from voxclone.settings import load_settings
    from voxclone.train import recovery
    from voxclone.train.encoder_settings import EncoderTraining

    if resume not in (None, "auto"):
        raise UsageError(f"--resume takes `auto`, not {resume!r}.")
    if changed and resume is None:
        raise UsageError("--changed belongs to `--resume auto`.")
    if start is not None and fresh:
        raise UsageError("--from and --fresh exclude each other.")
    settings = load_settings(EncoderTraining, config, overrides or [])
    if fresh or start is not None:
        settings = settings.model_copy(update={"start": recovery.FRESH if fresh else start})
    console = open_console(False)
    going_on = resume == "auto"
    raise typer.Exit(recovery.recover(settings, out, console, resume=going_on, changed=changed))


@mini_app.command("train")
def mini_train(
    config: Annotated[Path, typer.Argument(help="configs/mini/mini.yaml")],
    speech: Annotated[Path, typer.Option(help="manifest.jsonl of the speech pack")],
    out: Annotated[Path, typer.Option(help="folder of the run")],
    stage: Annotated[Optional[str], typer.Option(help="this stage alone")] = None,  # noqa: UP045
    changed: Changed = False,
    overrides: Overrides = None,
) -> None:
    """Train recogniser, codec and language model; goes on where it stopped."""
    from voxclone.mini import recipe, workshop
    from voxclone.settings import load_settings

    settings = load_settings(workshop.MiniSettings, config, overrides or [])
    recipe.run(settings, speech, out, open_console(False), stage=stage, changed=changed)


@mini_app.command("publish")
def mini_publish(
    config: Annotated[Path, typer.Argument(help="configs/mini/mini.yaml")],
    speech: Annotated[Path, typer.Option(help="manifest.jsonl of the speech pack")],
    out: Annotated[Path, typer.Option(help="folder of the finished run")],
    target: Annotated[Path, typer.Option(help="folder to write release, oracle, recogniser to")],
    overrides: Overrides = None,
) -> None:
    """Write the release and the oracle of a finished run."""
    from voxclone.mini import publish, workshop
    from voxclone.settings import load_settings

    settings = load_settings(workshop.MiniSettings, config, overrides or [])
    publish.publish(workshop.open_workshop(settings, speech, out, open_console(False)), target)


@mini_app.command("report")
def mini_report(
    speech: Annotated[Path, typer.Option(help="manifest.jsonl of the speech pack")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder for a report of each kind")],
    encoder: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="NAME=FILE of an encoder to compare with the oracle."),
    ] = None,
    assets: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder that `mini publish` wrote, if not the packaged one."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the manifest to measure on.")] = "test",
    seconds: Annotated[float, typer.Option(help="About how much speech.")] = 300,
) -> None:
    """Measure codec, presets and cloning on the test speakers, against the oracle."""
    from voxclone.cli_report import present, progress
    from voxclone.cli_tools import load_listed, make_embedders, make_listener
    from voxclone.evaluate.transcribe import CharacterTranscriber
    from voxclone.mini import oracle, report
    from voxclone.release.archive import Release

    console = open_console(False)
    track = progress(console)
    named = dict(item.split("=", 1) for item in encoder or [])
    folder = assets if assets is not None else oracle.ASSETS
    found = report.report(
        Release.open(folder / "release"),
        load_listed(speech, split, seconds, track),
        {name: Path(path) for name, path in named.items()},
        make_embedders(None)[0],
        CharacterTranscriber(oracle.recogniser(folder)),
        make_listener(True),
        assets=folder,
        track=track,
    )
    for name, figures in found.items():
        console.rule(name)
        present(figures, None, list, out / name.replace(" ", "-"), console)


def _enroll(
    path: Path, release: "Release", codec: Any, name: str, consent: Any, console: "Console"
) -> "Enrolled":
    import voxclone.cloning.enroll as cloning
    from voxclone.audio.files import read_recording

    recording = read_recording(path)
    enrolled = cloning.enroll(recording, release, codec, name=name, consent=consent)
    for sentence in enrolled.reference.report.sentences():
        console.print(f"Reference  {sentence}", highlight=False, soft_wrap=True)
    frames = enrolled.voice.codes_KT.shape[1]
    seconds = enrolled.voice.facts.reference_seconds
    console.print(f"Voice      {frames} frames of codes from {seconds:.1f} s.")
    return enrolled


def _speak(
    speaker: "Speaker",
    text: str,
    rows_ND: "Tensor",
    out: Path,
    seed: int | None,
    cfg: float,
    console: "Console",
    reference: "Reference | None",
) -> None:
    from voxclone.audio.files import write_wave

    with _speaking(console) as progress:
        speech = speaker.speak(text, rows_ND, seed=seed, cfg=cfg, progress=progress)
    if not len(speech.wave_S):
        raise VoxcloneError(
            f"The model ended before it said anything (seed {speech.seed}): try another seed."
        )
    clipped = write_wave(out, speech.wave_S.numpy(), speech.sampling_rate)
    ratio = speech.seconds / speech.duration
    console.print(
        f"Speech     {speech.duration:.1f} s in {speech.seconds:.1f} s ({ratio:.2f} x real time), "
        f"seed {speech.seed}, cfg {speech.cfg:g}."
    )
    if clipped:
        console.print(f"[yellow]Clipped    {clipped} samples were beyond full scale.[/yellow]")
    for part in speech.truncated:
        console.print(f"[yellow]Truncated  The model did not end by itself: {part!r}.[/yellow]")
    if reference is not None:
        _print_likeness(speech, reference, console)
    console.print(f"Wrote      {out}")


def _print_likeness(speech: "Speech", reference: "Reference", console: "Console") -> None:
    import torch

    from voxclone.evaluate.cloned import to_level
    from voxclone.evaluate.likeness import Ge2eEmbedder, likeness

    embedder = Ge2eEmbedder.load()
    reference_S = torch.from_numpy(reference.wave_S)
    try:
        value = likeness(embedder, to_level(speech.wave_S), to_level(reference_S))
    except AudioError as error:
        console.print(f"[yellow]Likeness   not measured: {error}[/yellow]")
        return
    console.print(
        f"Likeness   {value:.2f} to the reference ({embedder.name}: one speaker's own recordings "
        "are near 0.75, strangers near 0.5)."
    )


@contextmanager
def _speaking(console: "Console") -> Iterator[Callable[[int, float], None]]:
    """A progress bar of frames, where somebody looks at it."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("Speaking"), BarColumn(), TextColumn("{task.fields[s]:.1f} s"))
    shown = console.is_terminal and not console.quiet
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not shown) as bar:
        task = bar.add_task("", total=None, s=0.0)
        yield lambda done, of: bar.update(task, completed=done, total=max(of, done), s=done / 12.5)


def _text(text: str) -> str:
    from voxclone.speech.text import check_text

    return check_text(sys.stdin.read() if text == "-" else text)
