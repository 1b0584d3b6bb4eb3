"""A run of the recipe of the mini release: its settings, its speech, and what its stages left.

Everything lies in one folder: packed speech, and a folder of checkpoints for each stage.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track
from torch import Tensor

from recipes.mini_release.codec import CodecTraining
from recipes.mini_release.decoder import DecoderTraining
from recipes.mini_release.listeners import Listeners
from recipes.mini_release.recogniser import RecogniserTraining
from recipes.mini_release.speech import SpeechTraining
from recipes.mini_release.training import RunSettings
from recipes.mini_release.voices import VoicesTraining
from voxclone import checkpoint
from voxclone.codec.config import CodecConfig
from voxclone.codec.model import Codec
from voxclone.config import Settings
from voxclone.data.corpus import Corpus, Subset, check_left_out, pack
from voxclone.data.manifest import Clip, read_manifest
from voxclone.errors import ConfigError
from voxclone.models.ctc_asr import Recognizer, RecognizerConfig
from voxclone.models.speaker_network import SpeakerNetwork
from voxclone.train.loop import CHECKPOINTS

ItemT = TypeVar("ItemT")


class LanguageModelSize(Settings):
    """Sizes of the language model and of the acoustic head, which share width and heads."""

    dim: int = 192
    n_layers: int = 6
    head_dim: int = 32
    hidden_dim: int = 512
    n_heads: int = 6
    n_kv_heads: int = 2
    acoustic_layers: int = 3
    acoustic_hidden_dim: int = 512
    max_seq_len: int = 512


class MiniSettings(Settings):
    """Every value of the recipe. `licences` are the only ones trained on. With `start` (a folder
    that `mini publish` wrote) codec, language model and head go on from published weights: give a
    stage no steps to keep its part, and the codec `quantise_from: -1` to keep its code book."""

    start: Path | None = None
    licences: tuple[str, ...]
    recogniser: RecogniserTraining
    voices: VoicesTraining
    codec: CodecConfig
    codec_training: CodecTraining
    decoder_training: DecoderTraining
    speeds: tuple[float, ...] = (1.0, 0.86, 0.93, 1.08, 1.16)
    delays: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    coloured: tuple[float, ...] = ()
    language_model: LanguageModelSize = LanguageModelSize()
    speech: SpeechTraining
    presets: dict[str, str]
    preset_seconds: float = 8.0


@dataclass(frozen=True)
class Workshop:
    """A run of the recipe: settings, speech and the folder that everything goes to."""

    settings: MiniSettings
    corpus: Corpus
    folder: Path
    console: Console
    changed: bool = False
    """Whether stages may go on with values that their checkpoints were not made with."""

    def licensed(self, clip: Clip) -> bool:
        """Whether a clip may be trained on."""
        return clip.license in self.settings.licences

    def split(self, split: str, *, spoken: bool = False) -> Subset:
        """Licensed clips of a split; with `spoken` only those with a transcript."""
        return self.corpus.subset(
            lambda c: self.licensed(c) and c.split == split and (not spoken or bool(c.text))
        )

    def track(self, what: str) -> Callable[[Iterable[ItemT]], Iterable[ItemT]]:
        """A progress bar for a loop."""
        return lambda items: track(list(items), description=what, console=self.console)


def open_workshop(
    settings: MiniSettings,
    manifest: Path,
    folder: Path,
    console: Console,
    *,
    changed: bool = False,
) -> Workshop:
    """Pack the speech of `manifest` (once) and open the run in `folder`."""
    clips = [clip for clip in read_manifest(manifest) if clip.license in settings.licences]
    if not clips:
        raise ConfigError(f"No clip of {manifest} has one of the licences {settings.licences}.")
    corpus = pack(
        clips,
        folder / "speech",
        lambda items: track(list(items), description="decoding speech", console=console),
    )
    said = check_left_out([*corpus.left_out.values()], len(clips))
    if said is not None:
        console.print(f"{manifest}: {said}", style="yellow", markup=False, soft_wrap=True)
    return Workshop(settings, corpus, folder, console, changed)


def finished_codec(shop: Workshop) -> Codec:
    """The codec of stages 2 and 3, its weights rounded to bf16 as a release stores them."""
    codec = codec_of(shop, finished(shop, "codec", shop.settings.codec_training.run).tensors)
    found = finished(shop, "decoder", shop.settings.decoder_training.run).tensors
    codec.decoder.load_state_dict(_part(found, "decoder"))
    return codec.eval().requires_grad_(False)


def finished_recogniser(shop: Workshop) -> Recognizer:
    """The recogniser of stage 1."""
    found = finished(shop, "recogniser", shop.settings.recogniser.run)
    model = Recognizer(RecognizerConfig(**found.values["state"]["recogniser"]))
    model.load_state_dict(_part(found.tensors, "recogniser"))
    return model.eval().requires_grad_(False)


def finished_voices(shop: Workshop) -> SpeakerNetwork:
    """The network of stage 1b, which tells speakers apart."""
    settings = shop.settings.voices
    found = finished(shop, "voices", settings.run)
    voices = SpeakerNetwork(int(found.values["state"]["speakers"]), settings.dim, settings.blocks)
    voices.load_state_dict(_part(found.tensors, "voices"))
    return voices


def listeners(shop: Workshop) -> Listeners:
    """The recogniser and the network that tells speakers apart, frozen."""
    return Listeners.frozen(finished_recogniser(shop), finished_voices(shop))


def finished_speech(shop: Workshop) -> dict[str, Tensor]:
    """Tensors of stage 4: `backbone.*` and `head.*`."""
    found = finished(shop, "speech", shop.settings.speech.run).tensors
    return {k.removeprefix("module."): v for k, v in found.items() if k.startswith("module.")}


def codec_of(shop: Workshop, found: dict[str, Tensor]) -> Codec:
    codec = Codec(shop.settings.codec)
    codec.load_state_dict(_part(found, "codec"))
    return codec


def _part(tensors: dict[str, Tensor], module: str) -> dict[str, Tensor]:
    """The state of one module of a checkpoint, rounded as a release stores it."""
    prefix = f"module.{module}."
    return {
        k[len(prefix) :]: v.bfloat16().float() for k, v in tensors.items() if k.startswith(prefix)
    }


def finished(shop: Workshop, stage: str, run: RunSettings) -> checkpoint.Checkpoint:
    """The newest checkpoint of a stage. Raises ConfigError if the stage is not done."""
    found, _ = checkpoint.load_latest(shop.folder / stage / CHECKPOINTS)
    if found is None or found.step < run.steps:
        reached = "has not begun" if found is None else f"stands at step {found.step}"
        raise ConfigError(
            f"The stage {stage} in {shop.folder} {reached} of {run.steps}: finish it first."
        )
    return found
