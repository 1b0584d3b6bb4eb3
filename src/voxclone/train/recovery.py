"""The command `train encoder`: gather the material, run `EncoderTask`, write the encoder file.

Only the release and speech of the user's own go in; where a release has an encoder already, it is
not looked at.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console
from rich.progress import track
from torch import Tensor

from voxclone.audio.manifest import Clip, Manifest
from voxclone.errors import EXIT_OK, ConfigError
from voxclone.evaluate.recogniser import Recogniser, load_recogniser
from voxclone.release.archive import MINI, Release, load_codec, mini_release
from voxclone.release.encoders import save_encoder
from voxclone.speech.speaker import Speaker
from voxclone.train.corpus import Corpus, Subset, pack
from voxclone.train.defects import misalign
from voxclone.train.encoder import EncoderTask, encoder_state
from voxclone.train.encoder_settings import EncoderTraining
from voxclone.train.lazy import LazyCorpus
from voxclone.train.pairs import read_pairs, speak_pairs
from voxclone.train.run import EXIT_INTERRUPTED, fit, pick_device
from voxclone.train.whisper import TargetStore, WhisperTeacher
from voxclone.voice.presets import preset_codes

ENCODER_FILE = "encoder.safetensors"
TEXTS = Path(__file__).parent / "texts.txt"


def recover(settings: EncoderTraining, out: Path, console: Console, *, resume: bool) -> int:
    """Train as the settings say, in the folder `out`; returns the exit code."""
    task = prepare(settings, out, console)
    config = settings.model_dump(mode="json")
    outcome = fit(task, settings.run, out, resume=resume, config=config, console=console)
    release = Release.open(settings.model)
    facts = {"config": config, "step": outcome.step, "figures": outcome.figures}
    path = out / ENCODER_FILE
    save_encoder(path, encoder_state(task), release, facts)
    console.print(f"Wrote {path} (step {outcome.step}, {outcome.reason}).")
    if outcome.reason == "interrupted":
        console.print("Go on with the same command and `--resume auto`.")
        return EXIT_INTERRUPTED
    console.print(f'Use it: voxclone clone REF "text" -o out.wav --encoder {path}')
    return EXIT_OK


def prepare(settings: EncoderTraining, out: Path, console: Console) -> EncoderTask:
    """Presets, pairs by the language model, and real speech for one recovery."""
    release = Release.open(settings.model)
    codec = load_codec(release)
    presets = preset_codes(release)
    inexact = {name: share for name, share in presets.exact.items() if share < 1}
    if inexact:
        console.print(f"[yellow]Presets that do not invert bit for bit: {inexact}.[/yellow]")
    genuine: list[Tensor] = []
    speaker = None
    stored = settings.pairs.folder
    if stored is not None:
        genuine = read_pairs(stored, release)
    if (settings.pairs.minutes and stored is None) or settings.weights.told:
        speaker = Speaker.load(release, codec=codec)
    if settings.pairs.minutes and stored is None and speaker is not None:
        texts = read_texts(settings.texts or TEXTS)
        genuine = speak_pairs(release, speaker, texts, settings.pairs, out / "pairs")
    held_out = dict(sorted(presets.codes.items())[::3])
    genuine += [codes for name, codes in presets.codes.items() if name not in held_out]
    corpus, subset = _speech(settings, out, console)
    return EncoderTask.create(
        settings,
        codec,
        genuine,
        held_out,
        corpus,
        subset,
        _teacher(settings.teacher),
        speaker if settings.weights.told else None,
        out / "labels",
        _whisper(settings, out),
    )


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


def _speech(settings: EncoderTraining, out: Path, console: Console) -> tuple[Corpus, Subset]:
    if settings.speech is None:
        raise ConfigError(
            "The config names no speech: set `speech` to a manifest (JSON lines with id, path, "
            "speaker, duration), for example with `--set speech=my/manifest.jsonl`."
        )
    manifest, allowed = Manifest(settings.speech), settings.licences
    chosen_N = manifest.select(split="train", licences=allowed)
    if not len(chosen_N):
        raise ConfigError(
            f"{settings.speech} has no clip of the split `train` under the licences {allowed}."
        )
    if manifest.prepared:
        lazy = LazyCorpus(manifest)
        return lazy, Subset(lazy, chosen_N.tolist())
    corpus = pack([manifest[int(number)] for number in chosen_N], out / "speech", _bar(console))
    return corpus, corpus.subset(lambda clip: True)


def _bar(console: Console) -> Callable[[Iterable[Clip]], Iterable[Clip]]:
    return lambda items: track(list(items), description="preparing", console=console)
