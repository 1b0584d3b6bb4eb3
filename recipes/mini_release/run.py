"""A run of the recipe: its settings, its speech, and what its stages left in its folder."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from recipes.mini_release.codec import CodecTraining
from recipes.mini_release.layout import LanguageModelSize
from recipes.mini_release.recognizer import RecognizerTraining
from recipes.mini_release.speaker_network import SpeakerNetworkTraining
from recipes.mini_release.speech import SpeechTraining
from voxclone import checkpoint
from voxclone.codec.config import CodecConfig
from voxclone.codec.model import Codec
from voxclone.config import Settings
from voxclone.data.corpus import PackedCorpus, Subset, check_left_out, pack
from voxclone.data.manifest import Clip, read_manifest
from voxclone.device import pick_device, precision_note
from voxclone.errors import ConfigError, TrainingError
from voxclone.models.ctc_asr import Recognizer, RecognizerConfig
from voxclone.models.speaker_network import SpeakerNetwork
from voxclone.train.checkpoint import check_config
from voxclone.train.loop import CHECKPOINTS, RunSettings, Task, fit

SPEAKERS = Path(__file__).parent / "data" / "speakers.json"
TRANSCRIPTS = "transcripts.json"
ItemT = TypeVar("ItemT")


class MiniSettings(Settings):
    """Every value of the recipe. Only speech under one of the `licenses` is trained on; `speeds`
    are those of the codes that the language model learns from; `presets` are neutral names of
    voices, and the training speaker whose clips are joined for each."""

    licenses: tuple[str, ...]
    recognizer: RecognizerTraining
    speaker_network: SpeakerNetworkTraining
    codec: CodecConfig
    codec_training: CodecTraining
    decoder_training: CodecTraining
    speeds: tuple[float, ...]
    language_model: LanguageModelSize
    speech: SpeechTraining
    presets: dict[str, str]
    preset_seconds: float

    def training(self, stage: str) -> RunSettings:
        """The length of a stage."""
        return {
            "recognizer": self.recognizer.run,
            "speaker_network": self.speaker_network.run,
            "codec": self.codec_training.run,
            "decoder": self.decoder_training.run,
            "speech": self.speech.run,
        }[stage]


class InterruptedRecipe(ConfigError):
    """A stage was stopped; calling the recipe again goes on from there."""

    exit_code = 5


@dataclass(frozen=True)
class Options:
    """What a call of the recipe names besides its settings: the manifest of the speech, folders of
    Whisper, of the run, and of Kokoro, and the sets of speakers. Stages in `start` begin from the
    weights of a file. With `changed`, stages go on with values that were changed."""

    speech: Path
    whisper: Path
    out: Path
    speakers: Path = SPEAKERS
    kokoro: Path | None = None
    device: str = "auto"
    workers: int = 0
    minutes: float | None = None
    changed: bool = False
    start: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """An opened run; at `deadline` (of `time.monotonic()`) a stage must save and stop."""

    settings: MiniSettings
    options: Options
    corpus: PackedCorpus
    device: torch.device
    console: Console
    deadline: float | None

    @property
    def folder(self) -> Path:
        return self.options.out

    def split(self, split: str, keep: Callable[[Clip], bool] = lambda clip: True) -> Subset:
        """Clips of a split: `train` has those of the release's speakers alone, `valid` held-out
        clips of theirs and of the validation speakers."""
        sets = json.loads(self.options.speakers.read_text(encoding="utf-8"))
        own = {*sets["release"], *(sets["validation"] if split == "valid" else [])}
        return self.corpus.subset(lambda c: c.split == split and c.speaker in own and keep(c))

    def track(self, what: str) -> Callable[[Iterable[ItemT]], Iterable[ItemT]]:
        """A progress bar for a loop."""
        return lambda items: track(list(items), description=what, console=self.console)

    def track_in_time(self, stage: str) -> Callable[[Iterable[ItemT]], Iterable[ItemT]]:
        """A progress bar for the loop of a stage that keeps what is done. After the deadline, the
        item in progress is the last one, and InterruptedRecipe is raised."""

        def tracked(items: Iterable[ItemT]) -> Iterator[ItemT]:
            left = list(items)
            for number, item in enumerate(self.track(stage)(left), 1):
                yield item
                late = self.deadline is not None and time.monotonic() > self.deadline
                if late and number < len(left):
                    raise InterruptedRecipe(
                        f"The stage {stage} stopped after {number} of {len(left)} (time): call "
                        "the recipe again to go on."
                    )

        return tracked

    def fit(self, stage: str, build: Callable[[], Task], config: dict[str, Any]) -> None:
        """Train a stage to its end, unless it is done. Raises TrainingError if it breaks, and
        InterruptedRecipe if time or a signal ends it before."""
        settings, folder = self.settings.training(stage), self.folder / stage
        found = self.latest(stage)
        if found is not None and found.step >= settings.steps:
            if not self.options.changed:
                check_config(found.values["config"], config, folder)
            return
        task = build()
        if found is None and stage in self.options.start:
            absent = task.state.load_tensors(read_weights(self.options.start[stage]), changed=True)
            self.console.print(f"{stage} starts without {', '.join(absent) or 'any loss'}.")
        if self.deadline is not None:
            left = max(0.0, self.deadline - time.monotonic()) / 60
            settings = settings.model_copy(update={"max_minutes": left})
        outcome = fit(
            task, settings, folder, resume=True, changed=self.options.changed, config=config,
            console=self.console,
        )  # fmt: skip
        if outcome.sentence is not None:
            raise TrainingError(f"The stage {stage} was stopped: {outcome.sentence}")
        if outcome.reason != "done":
            raise InterruptedRecipe(
                f"The stage {stage} stopped at step {outcome.step} ({outcome.reason}): call the "
                "recipe again to go on."
            )

    def latest(self, stage: str) -> checkpoint.Checkpoint | None:
        """The newest checkpoint of a stage."""
        return checkpoint.load_latest(self.folder / stage / CHECKPOINTS)[0]

    def finished(self, stage: str) -> checkpoint.Checkpoint:
        """The last checkpoint of a stage. Raises ConfigError if the stage is not done."""
        found, steps = self.latest(stage), self.settings.training(stage).steps
        if found is None or found.step < steps:
            reached = "has not begun" if found is None else f"stands at step {found.step}"
            raise ConfigError(
                f"The stage {stage} in {self.folder} {reached} of {steps}: finish it first."
            )
        return found

    def recognizer(self) -> Recognizer:
        """The recognizer, frozen."""
        found = self.finished("recognizer")
        model = Recognizer(RecognizerConfig(**found.values["state"]["recognizer"]))
        model.load_state_dict(module_of(found.tensors, "recognizer"))
        return model.eval().requires_grad_(False).to(self.device)

    def speaker_network(self) -> SpeakerNetwork:
        """The network that tells the training speakers apart."""
        settings, found = self.settings.speaker_network, self.finished("speaker_network")
        count = int(found.values["state"]["speakers"])
        network = SpeakerNetwork(count, settings.dim, settings.blocks)
        network.load_state_dict(module_of(found.tensors, "speaker_network"))
        return network.eval().requires_grad_(False).to(self.device)

    def codec(self, stage: str) -> Codec:
        """The codec of the stage `codec` or `decoder`, its weights rounded to bf16 as in a
        release."""
        codec = Codec(self.settings.codec)
        codec.load_state_dict(module_of(self.finished(stage).tensors, "codec"))
        return codec.eval().requires_grad_(False).to(self.device)


def open_run(settings: MiniSettings, options: Options, console: Console) -> Run:
    """Pack the speech of the manifest (once). Raises ConfigError if there is none to train on."""
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    clips = [c for c in read_manifest(options.speech) if c.license in settings.licenses]
    if not clips:
        raise ConfigError(
            f"No clip of {options.speech} has one of the licenses {', '.join(settings.licenses)}."
        )
    device = pick_device(options.device)
    precision = precision_note(device, wanted=settings.codec_training.run.autocast)
    if precision is not None:
        console.print(precision)
    corpus = pack(
        clips,
        options.out / "recordings",
        lambda items: track(list(items), description="decoding speech", console=console),
    )
    note = check_left_out([*corpus.left_out.values()], len(clips))
    if note is not None:
        console.print(f"{options.speech}: {note}", style="yellow", markup=False, soft_wrap=True)
    return Run(settings, options, corpus, device, console, deadline)


def module_of(tensors: Mapping[str, Tensor], module: str) -> dict[str, Tensor]:
    """The state of one module of a checkpoint, rounded to bf16."""
    prefix = f"module.{module}."
    return {
        k[len(prefix) :]: v.bfloat16().float() for k, v in tensors.items() if k.startswith(prefix)
    }


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, in which matrices may be in eight bits, with a scale NAME.scale of each
    row. Raises ConfigError if it cannot be read."""
    try:
        tensors = load_file(path)
        for name in [name for name, tensor in tensors.items() if tensor.dtype == torch.int8]:
            tensors[name] = tensors.pop(f"{name}.scale")[:, None] * tensors[name]
        return tensors
    except (OSError, KeyError, SafetensorError) as error:
        raise ConfigError(f"The weights {path} cannot be read: {error}.") from None
