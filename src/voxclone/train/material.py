"""What an encoder is trained on and with: the release, speech, pairs, and frozen networks.

Only the release and speech of the user's own go in; where a release has an encoder already, it is
not looked at unless the training begins from it. Every process does all this for itself, and all
must come to the same.

Shapes: K codebooks, T frames.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from voxclone.codec.config import CodecConfig
from voxclone.codec.model import Codec, Encoder
from voxclone.data.bridge import Teacher, label_speech, train_bridge
from voxclone.data.corpus import Subset
from voxclone.data.labels import Label, load_labels, save_labels
from voxclone.data.pairs import TEXTS, PairSettings, read_pairs, read_texts, speak_pairs
from voxclone.data.speakers import Sizes, SpeakerPool
from voxclone.data.speech import open_speech
from voxclone.errors import ConfigError
from voxclone.io import tensor_hash
from voxclone.models.ctc_asr import Recognizer, load_packaged_recognizer, load_recognizer
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.models.speaker_network import load_packaged_speaker_network, load_speaker_network
from voxclone.models.whisper import TargetStore, WhisperTeacher
from voxclone.release.encoder_file import find_encoder
from voxclone.release.release import MINI, Release, load_codec
from voxclone.train import distributed
from voxclone.train.batch import check_batches
from voxclone.train.encoder_config import EncoderConfig, StepValues
from voxclone.train.speaker_loss import Embed, SpeakerLoss
from voxclone.tts.tts import TTS
from voxclone.voice.presets import preset_codes

FRESH, OWN = "fresh", "release"
GE2E = "ge2e"
HELD_OUT = 3
"""Every so many presets one is held out."""


@dataclass(frozen=True)
class Inputs:
    """Where things lie: options of the command. `init` is what the encoder begins as: `fresh`,
    `release` (the encoder that the release has) or a file; it must be given where the release has
    an encoder, and where it has none, an encoder is fresh."""

    model: str = MINI
    speech: Path | None = None
    init: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Material:
    """Everything that does not learn. `genuine` are codes [K, T] that the release made, `held_out`
    those of presets that nothing is trained on. `teacher` is an ASR model: a CTC recognizer, or
    Whisper's stored targets. `labels` is the folder of pseudo-labels; `bridge_labels` are those
    that a bridge gives every clip."""

    codec: Codec
    speech: Subset
    genuine: Sequence[Tensor]
    held_out: dict[str, Tensor] = field(default_factory=dict)
    init: Encoder | None = None
    teacher: Teacher | None = None
    language_model: TTS | None = None
    labels: Path | None = None
    speakers: SpeakerLoss | None = None
    bridge_labels: Mapping[int, Label] = field(default_factory=dict)


def gather(
    config: EncoderConfig, inputs: Inputs, device: torch.device, out: Path, console: Console
) -> Material:
    """Open and make what the config asks for; what is made goes into the folder `out`."""
    weights = config.weights
    release = Release.open(inputs.model)
    codec = load_codec(release)
    init = first_encoder(release, inputs.init)
    stored, minutes = config.pairs.folder, config.pairs.minutes
    genuine = [] if stored is None else read_pairs(stored, release)
    model = None
    asks = bool(weights.pseudo_label or weights.speaker_contrastive)
    if asks or (minutes and stored is None):
        dtype = None if config.run.autocast else torch.float32
        model = TTS.load(release, codec=codec, dtype=dtype, device=device)
    # After all weights were read and checked: packing many hours of speech takes long.
    speech = open_speech(inputs.speech, config.licenses, out / "speech", console)
    presets = preset_codes(release)
    inexact = {name: share for name, share in presets.exact.items() if share < 1}
    if inexact:
        console.print(f"[yellow]Presets that do not invert bit for bit: {inexact}.[/yellow]")
    if minutes and stored is None and model is not None:
        texts = read_texts(TEXTS)
        genuine = speak_pairs(release, model, texts, PairSettings(), minutes, out / "pairs")
    held_out = dict(sorted(presets.codes.items())[::HELD_OUT])
    genuine += [codes for name, codes in presets.codes.items() if name not in held_out]
    teacher = speakers = None
    if config.teacher is not None and (weights.bridge or weights.asr_distillation):
        teacher = open_teacher(config.teacher, device, out / "whisper")
    bridged: dict[int, Label] = {}
    if weights.bridge and teacher is not None:
        seed = config.run.seed
        bridged = bridge_labels(teacher, codec.to(device), genuine, speech, out / "labels", seed)
    named = config.speaker_loss.speaker_encoder
    if weights.speaker_contrastive and named is not None and model is not None:
        sizes = Sizes()
        pool = SpeakerPool.of(speech, sizes, codec.frame_size)
        speakers = SpeakerLoss.frozen(model, open_embedder(named, device), pool, sizes)
    return Material(
        codec, speech, genuine, held_out, init, teacher, model if asks else None, out / "labels",
        speakers, bridged,
    )  # fmt: skip


def check(values: StepValues, codec: CodecConfig, material: Material | None) -> None:
    """Raise ConfigError for weights of which something is missing (not asked without `material`),
    for crops of which nothing counts, and for batches that processes cannot share."""
    weights = values.weights
    used = {
        "pair_batch": values.pair_batch,
        "real_batch": values.real_batch if values.real_from < values.steps else 0,
        "pseudo_labels.batch": values.label_batch if weights["pseudo_label"] else 0,
    }
    check_batches(used, values.micro_batches)
    if values.real_from and not values.pair_batch:
        raise ConfigError(
            f"Before step {values.real_from} (`real_from`) there are pairs alone, and these have "
            "no weight: set `real_from` to 0, or `weights.pair_levels` above 0."
        )
    if weights["bridge"] and not values.pair_batch:
        raise ConfigError(
            "The weight `bridge` needs pairs, from which the bridge learns, and these have no "
            "weight: set `weights.pair_levels` above 0, or `weights.bridge` to 0."
        )
    if weights["pseudo_label"] and not values.label_steps:
        raise ConfigError("The weight `pseudo_label` needs steps in `pseudo_labels.label_steps`.")
    if material is not None:
        _check_material(values, codec, material)


def _check_material(values: StepValues, codec: CodecConfig, material: Material) -> None:
    weights = values.weights
    for name in ("bridge", "asr_distillation"):
        if weights[name] and material.teacher is None:
            raise ConfigError(
                f"The weight `{name}` needs a `teacher`: mini, the folder of a CTC recognizer, or "
                "a Whisper."
            )
    context = left_context(values.left_context, codec)
    whisper = isinstance(material.teacher, TargetStore)
    if weights["asr_distillation"] and whisper and values.frames <= context:
        raise ConfigError(
            f"Whisper's targets know the whole clip, so the first {context} frames of a crop from "
            f"within it do not count (`left_context`), and of {values.frames} nothing is left: set "
            f"`frames` to more, {4 * context} for example."
        )
    if weights["pseudo_label"] and (material.language_model is None or material.labels is None):
        raise ConfigError("The weight `pseudo_label` needs the release's language model.")
    if weights["speaker_contrastive"]:
        if material.speakers is None:
            raise ConfigError(
                "The weight `speaker_contrastive` needs a `speaker_loss.speaker_encoder`: mini, "
                "ge2e, or the folder of a network that tells speakers apart."
            )
        items = {"speakers of a step": material.speakers.sizes.items}
        check_batches(items, values.micro_batches)


def left_context(given: int | None, codec: CodecConfig) -> int:
    """The frames `given`, or as many as the encoder looks back over."""
    return codec.encoder_history if given is None else given


def first_encoder(release: Release, init: str | None) -> Encoder | None:
    """What the encoder begins as; None is a fresh one. Raises ConfigError where that is not given
    and the release has an encoder already."""
    has_one = release.report.encoder != "withheld"
    if init is None and has_one:
        raise ConfigError(
            f"The release {release.path} has an encoder already: say `--init release` to go on "
            "from it, `--init FILE` to go on from another, or `--init fresh` to train one from "
            "nothing."
        )
    if init in (None, FRESH):
        return None
    if init == OWN:
        if not has_one:
            raise ConfigError(
                f"The release {release.path} has no encoder to begin from: leave out `--init`, or "
                "name a file."
            )
        return load_codec(release).require_encoder()
    return load_codec(release, find_encoder(release, Path(init))).require_encoder()


def bridge_labels(
    teacher: Teacher,
    codec: Codec,
    genuine: Sequence[Tensor],
    speech: Subset,
    folder: Path,
    seed: int,
) -> dict[int, Label]:
    """Labels of all clips of `speech`, by a bridge that learns from the `genuine` codes [K, T].
    They are kept in `folder`, and read from it by who resumes the training."""
    if isinstance(teacher, Recognizer):
        name = tensor_hash(*teacher.state_dict().values())
    else:
        name = teacher.teacher.name
    clips = str(speech.identity()["hash"])
    asked = (clips, name, seed, tensor_hash(*genuine))
    digest = hashlib.sha256(repr(asked).encode()).hexdigest()
    path, size = folder / f"bridge-{digest[:16]}.safetensors", codec.frame_size
    with distributed.rank0_first():
        if distributed.is_rank0() and not path.exists():
            bridge = train_bridge(teacher, codec, genuine, seed, distributed.check_stop)
            labels = label_speech(teacher, bridge, speech, size, distributed.check_stop)
            save_labels(path, labels, clips)
    return load_labels(path)[0]


def open_teacher(source: str, device: torch.device, folder: Path) -> Teacher:
    """The ASR model that is named: `mini` is the packaged CTC recognizer, a folder that holds one
    is that, and all else is a Whisper, whose targets are stored in `folder`."""
    if source == MINI:
        return load_packaged_recognizer().to(device)
    if (Path(source) / "recognizer.safetensors").exists():
        return load_recognizer(Path(source)).to(device)
    return TargetStore(WhisperTeacher(source, device=str(device)), folder)


def open_embedder(source: str, device: torch.device) -> Embed:
    """Who tells voices apart: the packaged network for `mini`, GE2E, or a network in a folder."""
    if source == GE2E:
        return Ge2eEmbedder.load(str(device)).embed_batch
    if source == MINI:
        return load_packaged_speaker_network().to(device)
    return load_speaker_network(Path(source)).to(device)


def require_same_speech(speech: Subset, path: Path | None) -> None:
    """Raise ConfigError (see `distributed.fail_together`) unless all processes read the same."""
    identity = speech.identity()
    (other,) = distributed.any_rank(distributed.broadcast(identity) != identity)
    if other:
        distributed.fail_together(
            ConfigError(
                f"Not all machines see the same speech as this one ({identity['clips']:,} clips, "
                f"{identity['hours']:g} h of {path}): give all of them the same files."
            )
        )
