"""Sizes, material and loops of the smallest trainings."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from tests.helpers.random_weights import drawn_codec
from tests.helpers.tiny_speech import TinySpeech
from voxclone.codec.config import CodecConfig
from voxclone.codec.model import Codec
from voxclone.data.corpus import Corpus, Subset
from voxclone.data.labels import Label
from voxclone.models.ctc_asr import Recognizer, RecognizerConfig
from voxclone.train.encoder import EncoderTraining, build
from voxclone.train.encoder_config import EncoderConfig
from voxclone.train.loop import Task
from voxclone.train.material import Material
from voxclone.train.optim import OptimizerSettings
from voxclone.tts.tts import TTS

QUIET = Console(quiet=True)
CPU = torch.device("cpu")
FAST = OptimizerSettings(lr=3e-3, warmup_steps=5)
CODEC = CodecConfig(
    semantic_codebook_size=16,
    semantic_dim=6,
    acoustic_dim=3,
    dim=16,
    hidden_dim=24,
    head_dim=8,
    n_heads=2,
    n_kv_heads=2,
)


def ctc_teacher() -> Recognizer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Recognizer(RecognizerConfig(characters=" abc", dim=8, blocks=1))


def usual_codec(config: CodecConfig = CODEC) -> Codec:
    """A codec whose code vectors are all used: one that hardly is has an enormous vector, beside
    which all else is rounding."""
    codec = drawn_codec(config)
    codec.quantizer.semantic_codebook.cluster_usage.clamp_(min=0.5)
    return codec


def genuine_codes(codec: Codec, count: int = 6, frames: int = 9) -> list[Tensor]:
    """Codes [K, T] with levels that are not extreme."""
    generator = torch.Generator().manual_seed(0)
    size, channels = codec.config.semantic_codebook_size, codec.config.acoustic_dim
    return [
        torch.cat(
            [
                torch.randint(size, (1, frames), generator=generator),
                torch.randint(5, 16, (channels, frames), generator=generator),
            ]
        )
        for _ in range(count)
    ]


def drawn_labels(speech: Subset, codec: Codec) -> dict[int, Label]:
    """Labels of every clip by nobody: two codes of each frame, evenly."""
    generator, size = torch.Generator().manual_seed(0), codec.config.semantic_codebook_size
    labels = {}
    for index in speech.indices:
        frames = speech.corpus.length(index) // codec.frame_size
        code_TJ = torch.randint(size, (frames, 2), generator=generator)
        labels[index] = Label(code_TJ, torch.full((frames, 2), 0.5))
    return labels


def tiny_material(speech: Subset, codec: Codec | None = None, **more: Any) -> Material:
    """Speech, codes that a tiny codec's release made, and a CTC teacher."""
    codec = usual_codec() if codec is None else codec
    genuine = genuine_codes(codec)
    material = Material(
        codec, speech, genuine, {"p": genuine[0]}, teacher=ctc_teacher(),
        bridge_labels=drawn_labels(speech, codec),
    )  # fmt: skip
    return replace(material, **more)


def config_of(**values: Any) -> EncoderConfig:
    """Small batches, in fp32 and from the first step on; `values` are laid over them."""
    given = {
        "run": {"steps": 40, "autocast": False},
        "optimizer": {"lr": 3e-3, "warmup_steps": 5},
        "pair_batch": 2, "real_batch": 2, "frames": 6, "real_from": 0,
    }  # fmt: skip
    for name, value in values.items():
        nested = isinstance(value, dict) and isinstance(given.get(name), dict)
        given[name] = given[name] | value if nested else value  # type: ignore[operator]
    return EncoderConfig.model_validate(given)


def training_of(
    corpus: Corpus, material: dict[str, Any] | None = None, **values: Any
) -> EncoderTraining:
    """A training on the clips of a corpus to train on."""
    speech = corpus.subset(lambda clip: clip.split == "train")
    return build(config_of(**values), tiny_material(speech, **(material or {})), CPU)


def language_model(speech_model: TinySpeech) -> tuple[Codec, TTS]:
    """The model of a training, and a codec of its sizes."""
    codec = drawn_codec(speech_model.params.codec).eval()
    model = TTS(
        speech_model.params, speech_model.backbone.eval(), speech_model.head, codec,
        speech_model.prompts,
    )  # fmt: skip
    return codec, model


def with_model(speech_model: TinySpeech, labels: Path | None, **more: Any) -> Material:
    """Material with a language model, for all clips of its corpus."""
    codec, model = language_model(speech_model)
    codec.decoder.requires_grad_(False)
    speech = speech_model.corpus.subset(lambda clip: True)
    return tiny_material(speech, codec, language_model=model, labels=labels, **more)


def steps(task: Task, count: int, start: int = 0) -> list[dict[str, float]]:
    rows = []
    for step in range(start, start + count):
        rows.append({k: float(v.detach()) for k, v in task.train_step(step).items()})
    return rows


def mean(rows: list[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)
