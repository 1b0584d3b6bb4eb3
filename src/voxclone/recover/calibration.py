"""How long the stages take on this device: a few real steps of the training, and some speech by the
language model.

The material is what `train encoder` gathers, but for the recordings: noise of their sizes stands in
for them, since what a step takes does not depend on what is in it.

Shapes: S samples.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
from rich.console import Console

from voxclone.config import load_settings
from voxclone.data.pairs import TEXTS, PairSettings, read_texts
from voxclone.data.speakers import Sizes
from voxclone.records import Record
from voxclone.release.release import Release, load_preset, preset_names
from voxclone.spec import FRAME_SIZE, SAMPLING_RATE
from voxclone.train.encoder import EncoderTraining, memory_errors, prepare
from voxclone.train.encoder_config import EncoderConfig
from voxclone.train.logging import Log
from voxclone.train.material import Inputs
from voxclone.tts.batch import Sampling
from voxclone.tts.generate import Request, generate_many
from voxclone.tts.tts import TTS

WORTH_STEPS = 50
"""A training of fewer steps is over before it is calibrated."""
LABELED_CLIPS = 4
FRAMES = 24
LONG = 10.0
"""Seconds of a first step after which it is not repeated."""
TEXT = "We walked along the river until it was dark."


class Calibration(Record):
    """Seconds of the training's parts, frames that the language model makes in a second with a full
    batch, seconds that the codec takes on the CPU for a second of speech (there and back), the
    device's peak memory (bytes), and bytes of a checkpoint."""

    train: float
    pair_frames_per_second: float
    codec_seconds: float
    memory: int
    checkpoint: int


@dataclass(frozen=True)
class StepKind:
    """What a step does beside the losses on pairs."""

    real: bool
    labels: bool
    speakers: bool
    discriminators: bool


def step_kind(config: EncoderConfig, step: int) -> StepKind:
    """Which kind a step of the training is."""
    weights, real = config.weights, step >= config.real_from
    first = min(config.pseudo_labels.label_steps, default=config.run.steps)
    after = step - max(config.speaker_loss.start, config.real_from)
    return StepKind(
        real=real,
        labels=bool(weights.pseudo_label) and real and step >= first,
        speakers=bool(weights.speaker_contrastive)
        and after >= 0
        and after % config.speaker_loss.every == 0,
        discriminators=bool(weights.feature_matching)
        and real
        and step >= config.discriminators.start,
    )


def calibrate(
    config: EncoderConfig, release: Release, device: torch.device, folder: Path
) -> Calibration:
    """Measure; files go to the empty folder `folder`. Raises TrainingError, with the values to
    lower, where the device has too little memory for a step."""
    speech = write_stand_in(folder, bool(config.weights.speaker_contrastive))
    fewer = {"clips": min(LABELED_CLIPS, config.pseudo_labels.clips)}
    short = config.model_copy(
        update={
            "pairs": config.pairs.model_copy(update={"minutes": 0.0, "folder": None}),
            "pseudo_labels": config.pseudo_labels.model_copy(update=fewer),
        }
    )
    inputs = Inputs(str(release.path), speech, None, str(device))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with memory_errors(config.step_values, device):
        training = prepare(short, inputs, device, folder / "run", Console(quiet=True))
        seconds = training_seconds(training, config, device)
        model = training.objective.material.language_model
        tts = model or TTS.load(release, codec=training.objective.material.codec, device=device)
        frames = pair_speed(release, tts, device)
    tensors = training.state.tensors().values()
    return Calibration(
        train=seconds,
        pair_frames_per_second=frames,
        codec_seconds=codec_seconds(training),
        memory=peak_memory(device),
        checkpoint=sum(each.numel() * each.element_size() for each in tensors),
    )


def training_seconds(
    training: EncoderTraining, config: EncoderConfig, device: torch.device
) -> float:
    """The seconds of a whole training: of each kind of steps one is measured."""
    kinds = [step_kind(config, step) for step in range(config.run.steps)]
    counts, steps = Counter(kinds), config.pseudo_labels.label_steps
    total, labels = 0.0, training.objective.labels
    for kind in dict.fromkeys(kinds):
        step = next(s for s, each in enumerate(kinds) if each == kind and s not in steps)
        if kind.labels and labels is not None and not labels.labels:
            once = seconds_of(partial(label, training, steps[0]), device)
            total += len(steps) * config.pseudo_labels.clips * once / max(1, len(labels.labels))
        total += counts[kind] * repeated(partial(training.train_step, step), device)
    log = Log(None)
    validation = seconds_of(lambda: training.validate(config.run.steps, log), device)
    return total + validation * (config.run.steps // config.run.validate_every + 1)


def label(training: EncoderTraining, step: int) -> None:
    """Label clips as before this step."""
    objective = training.objective
    assert objective.labels is not None
    with training.evaluation():
        objective.labels.renew(step, objective.codec)


def pair_speed(release: Release, tts: TTS, device: torch.device) -> float:
    """Frames in a second that the language model makes with the batch of `data pairs`."""
    settings = load_settings(PairSettings)
    names, texts = preset_names(release), read_texts(TEXTS)

    def speak(frames: int) -> None:
        requests = []
        for number in range(settings.batch):
            voice_ND = load_preset(release, names[number % len(names)])
            with torch.inference_mode():
                prompt_LD = tts.prompt(texts[number % len(texts)], voice_ND)
            requests.append(Request(prompt_LD, number, frames, Sampling(temperature=0.5)))
        for _ in generate_many(tts.backbone, tts.head, iter(requests), settings.batch):
            pass

    one, more = (seconds_of(partial(speak, count), device) for count in (2, FRAMES))
    return settings.batch * (FRAMES - 2) / max(1e-6, more - one)


def codec_seconds(training: EncoderTraining) -> float:
    """Seconds on the CPU to encode and decode one second of speech."""
    codec = training.objective.codec
    device = codec.device
    wave_BS = torch.zeros(1, 2 * SAMPLING_RATE)
    codec.to("cpu")
    with training.evaluation(), torch.inference_mode():
        seconds = seconds_of(lambda: codec.decode(codec.encode(wave_BS)), torch.device("cpu"))
    codec.to(device)
    return seconds / 2


def repeated(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call after the first one, unless that was long already."""
    first = seconds_of(call, device)
    return first if first > LONG else min(seconds_of(call, device) for _ in range(2))


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, with what it has begun on the device."""
    begun = time.monotonic()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - begun


def peak_memory(device: torch.device) -> int:
    """The most bytes that were in use: of the GPU, or of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    import resource

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def write_stand_in(folder: Path, clonable: bool) -> Path:
    """Noise by some speakers with texts, prepared; with enough of it to be cloned, if asked.
    Returns its manifest."""
    sizes = Sizes()
    lengths = [6 * SAMPLING_RATE // FRAME_SIZE * FRAME_SIZE] * 2
    if clonable:
        lengths[1] = (sizes.voice_frames[1] + 10) * FRAME_SIZE
    count = sizes.items + sizes.negatives if clonable else 4
    generator, rows = np.random.default_rng(0), []
    for number in range(2 * count):
        name, length = f"{number}.wav", lengths[number % 2]
        wave_S = 0.05 * generator.standard_normal(length, dtype=np.float32)
        soundfile.write(folder / name, wave_S, SAMPLING_RATE, subtype="PCM_16")
        rows.append(
            {
                "id": name, "path": name, "speaker": f"s{number // 2}", "text": TEXT,
                "duration": length / SAMPLING_RATE, "samples": length,
            }
        )  # fmt: skip
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
