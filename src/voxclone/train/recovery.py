"""The command `train encoder`: gather the material, run `EncoderTask`, write the encoder file.

Only the release and speech of the user's own go in; where a release has an encoder already, it is
not looked at unless the settings begin from it.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from voxclone import checkpoint
from voxclone.codec.model import Encoder
from voxclone.data.pairs import read_pairs, speak_pairs
from voxclone.errors import (
    EXIT_OK,
    EXIT_QUALITY,
    EXIT_USER,
    ConfigError,
    QualityError,
    TrainingError,
)
from voxclone.models.ctc_asr import Recogniser, load_recogniser
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.models.whisper import TargetStore, WhisperTeacher
from voxclone.release.encoder_file import find_encoder, save_encoder
from voxclone.release.release import MINI, Release, load_codec, mini_release
from voxclone.train import ranks
from voxclone.train.cloned import Cast, CloneListener, Hear
from voxclone.train.defects import misalign
from voxclone.train.encoder import EncoderTask, encoder_state
from voxclone.train.encoder_settings import EncoderTraining
from voxclone.train.health import sickness
from voxclone.train.listeners import load_voices
from voxclone.train.material import is_same, open_speech
from voxclone.train.resume import SPEECH
from voxclone.train.run import CHECKPOINTS, EXIT_INTERRUPTED, fit, pick_device
from voxclone.train.selection import choose, scores_of
from voxclone.tts.tts import TTS
from voxclone.voice.presets import preset_codes

ENCODER_FILE = "encoder.safetensors"
BEST_FILE = "best.safetensors"
FRESH, OWN = "fresh", "release"
GE2E = "ge2e"
TEXTS = Path(__file__).parent / "texts.txt"
NO_MEMORY = ("can't allocate memory", "not enough memory")
"""What PyTorch says of the CPU's, on Linux and elsewhere."""


def recover(
    settings: EncoderTraining, out: Path, console: Console, *, resume: bool, changed: bool = False
) -> int:
    """Train as the settings say, in the folder `out`; returns the exit code. Under torchrun all
    processes train together, and the first writes and prints.

    Raises TrainingError if the device has too little memory or too many steps in a row cannot be
    done, and QualityError if the encoder is lost (`health`).
    """
    ranks.start(pick_device(settings.run.device))
    try:
        return _recover(settings, out, console, resume=resume, changed=changed)
    except torch.OutOfMemoryError as error:
        raise _no_memory(settings, error) from None
    except RuntimeError as error:
        if not any(said in str(error) for said in NO_MEMORY):
            raise
        raise _no_memory(settings, error) from None
    finally:
        ranks.stop()


def _recover(
    settings: EncoderTraining, out: Path, console: Console, *, resume: bool, changed: bool
) -> int:
    console = console if ranks.is_first() else Console(quiet=True)
    if not is_shared(out):
        if not ranks.is_first():
            return EXIT_USER  # the first one says why
        raise ConfigError(
            f"The folder {out} is not the same one on all machines: name one on a file system that "
            "they share (`--out`)."
        )
    with ranks.first_then_others():
        if not resume:
            checkpoint.require_none(out / CHECKPOINTS, "--out")  # before speech is packed over it
        release = Release.open(settings.model)
        task = prepare(settings, out, console)
    identity = task.train.identity()
    if not is_same(identity):
        if not ranks.is_first():
            return EXIT_USER  # the first one says why
        raise ConfigError(
            f"Not all machines see the same speech as this one ({identity['clips']:,} clips, "
            f"{identity['hours']:g} h of {settings.speech}): give all of them the same files."
        )
    config = settings.model_dump(mode="json")
    best = out / BEST_FILE

    def facts(step: int, figures: dict[str, float]) -> dict[str, Any]:
        return {"config": config, "step": step, "figures": figures}

    def keep(step: int, figures: dict[str, float]) -> None:
        scores = scores_of(figures, told=bool(settings.weights.told))
        chosen = choose(task.state.values.get("best"), scores, step)
        if chosen["step"] == step:
            with ranks.first_then_others():
                if ranks.is_first():
                    save_encoder(best, encoder_state(task), release, facts(step, figures))
        task.state.values["best"] = chosen  # not before it is written: an error saves the state

    outcome = fit(
        task, settings.run, out, resume=resume, changed=changed,
        config=config | {SPEECH: identity}, console=console, keep=keep,
        sickness=_sickness(settings),
    )  # fmt: skip
    if outcome.sentence is not None and not ranks.is_first():
        return EXIT_QUALITY if outcome.reason == "sick" else EXIT_USER  # the first one says why
    if outcome.reason == "broken":
        raise TrainingError(f"The training was stopped: {outcome.sentence}")
    if outcome.reason == "sick":
        raise QualityError(
            f"The training was stopped at step {outcome.step}: {outcome.sentence}. The "
            f"checkpoint is in {out}; to go on all the same, add `--resume auto --set "
            "run.stop_when_sick=false`."
        )
    path = out / ENCODER_FILE
    if ranks.is_first():
        save_encoder(path, encoder_state(task), release, facts(outcome.step, outcome.figures))
    console.print(f"Wrote {path} (step {outcome.step}, {outcome.reason}).")
    chosen = task.state.values.get("best")
    if chosen is not None and chosen["step"] != outcome.step:
        console.print(f"By levels and semantic codes together, {best} (step {chosen['step']}) is "
                      "the best of this run.")  # fmt: skip
    if outcome.reason in ("interrupted", "time"):
        console.print("Go on with the same command and `--resume auto`.")
    if outcome.reason == "interrupted":
        return EXIT_INTERRUPTED
    console.print(f'Use it: voxclone clone REF "text" -o out.wav --encoder {path}')
    return EXIT_OK


def is_shared(out: Path) -> bool:
    """Whether all processes see what the first one writes into `out`, which it makes."""
    if ranks.size() == 1:
        return True
    mark = out / f".{secrets.token_hex(8)}"
    if ranks.is_first():
        out.mkdir(parents=True, exist_ok=True)
        mark.touch()
    name = ranks.tell(mark.name)
    (missed,) = ranks.any_of(not (out / name).exists())
    if ranks.is_first():
        mark.unlink()
    return not missed


def _sickness(settings: EncoderTraining) -> Callable[[int, dict[str, float]], str | None] | None:
    run = settings.run
    if not run.stop_when_sick:
        return None
    return lambda step, figures: sickness(figures) if step >= run.sick_from else None


def _no_memory(settings: EncoderTraining, error: Exception) -> TrainingError:
    run = settings.run
    clones = f"`clones.at_once` ({settings.clones.at_once}), " if settings.weights.cloned else ""
    return TrainingError(
        f"The device {pick_device(run.device)} has too little memory for a step: make `frames` "
        f"(now {settings.frames}), {clones}`real_batch` ({settings.real_batch}) or `pair_batch` "
        f"({settings.pair_batch}) smaller, or do the same batch in parts with `run.accumulate` "
        f"({run.accumulate}), for example `--set run.accumulate={2 * run.accumulate}`; a run that "
        "has begun takes that with `--resume auto --changed`. "
        f"({str(error).splitlines()[0]})"
    )


def prepare(settings: EncoderTraining, out: Path, console: Console) -> EncoderTask:
    """Presets, pairs by the language model, and real speech for one recovery."""
    release = Release.open(settings.model)
    codec = load_codec(release)
    start = _first_encoder(settings, release)
    speech = open_speech(settings, out / "speech", console)
    presets = preset_codes(release)
    inexact = {name: share for name, share in presets.exact.items() if share < 1}
    if inexact:
        console.print(f"[yellow]Presets that do not invert bit for bit: {inexact}.[/yellow]")
    genuine: list[Tensor] = []
    speaker = None
    stored = settings.pairs.folder
    if stored is not None:
        genuine = read_pairs(stored, release)
    weights, device = settings.weights, pick_device(settings.run.device)
    asked = bool(weights.told or weights.cloned or settings.judged_clips)
    if asked or (settings.pairs.minutes and stored is None):
        dtype = None if settings.run.autocast else torch.float32
        speaker = TTS.load(release, codec=codec, dtype=dtype, device=device)
    if settings.pairs.minutes and stored is None and speaker is not None:
        texts = read_texts(settings.texts or TEXTS)
        genuine = speak_pairs(release, speaker, texts, settings.pairs, out / "pairs")
    held_out = dict(sorted(presets.codes.items())[::3])
    genuine += [codes for name, codes in presets.codes.items() if name not in held_out]
    listener = None
    if weights.cloned and settings.listener is not None and speaker is not None:
        cast = Cast.of(speech, settings.clones, codec.frame_size)
        hear = _hear(settings.listener, device)
        listener = CloneListener.frozen(speaker, hear, cast, settings.clones)
    return EncoderTask.create(
        settings,
        codec,
        genuine,
        held_out,
        speech.corpus,
        speech,
        _teacher(settings.teacher),
        speaker if asked else None,
        out / "labels",
        _whisper(settings, out),
        start,
        listener,
    )


def _first_encoder(settings: EncoderTraining, release: Release) -> Encoder | None:
    """What the encoder begins as; None is a fresh one. Raises ConfigError where that is not said
    and the release has an encoder already."""
    has_one = release.report.encoder != "withheld"
    if settings.start is None and has_one:
        raise ConfigError(
            f"The release {release.path} has an encoder already: say `--from release` to go on "
            "from it, `--from FILE` to go on from another, or `--fresh` to train one from nothing."
        )
    if settings.start in (None, FRESH):
        return None
    if settings.start == OWN:
        if not has_one:
            raise ConfigError(
                f"The release {release.path} has no encoder to begin from: leave out `start`, or "
                "name a file."
            )
        return load_codec(release).require_encoder()
    return load_codec(release, find_encoder(release, Path(settings.start))).require_encoder()


def _whisper(settings: EncoderTraining, out: Path) -> TargetStore | None:
    if settings.whisper is None or not settings.weights.distil:
        return None
    device = str(pick_device(settings.run.device))
    teacher = misalign(WhisperTeacher(settings.whisper, device=device), settings.defects)
    return TargetStore(teacher, out / "whisper")


def _teacher(source: str | None) -> Recogniser | None:
    """The recogniser in a folder; `mini` is the packaged one."""
    if source is None:
        return None
    return load_recogniser(mini_release().parent / "recogniser" if source == MINI else Path(source))


def _hear(source: str, device: torch.device) -> Hear:
    """Who tells voices apart: the packaged network for `mini`, GE2E, or a network in a folder."""
    if source == GE2E:
        return Ge2eEmbedder.load(str(device)).embed_batch
    folder = mini_release().parent / "voices" if source == MINI else Path(source)
    return load_voices(folder).to(device)


def read_texts(path: Path) -> list[str]:
    """Lines of a text file that are neither empty nor comments."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"The texts {path} cannot be read: {error.strerror}.") from None
    texts = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not texts:
        raise ConfigError(f"There is no text in {path}.")
    return texts
