"""What an adapter is trained on: everything that does not learn, made once.

The encoder is frozen in phase 2, so all speech becomes codes before the first step. The frozen
model speaks some texts with its presets: speech whose true codes are known, which the encoder reads
as it will read recordings. All of it is stored in the run's folder and read again.

Shapes: K codebooks, T frames, N frames of a voice embedding, D width.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.data.corpus import Subset
from voxclone.data.manifest import stable_hash
from voxclone.data.pairs import TEXTS, read_texts
from voxclone.errors import ConfigError
from voxclone.io import atomic_file, atomic_path
from voxclone.readers import read_json
from voxclone.release.encoder_file import find_encoder
from voxclone.release.release import Release, load_codec, load_preset, preset_names
from voxclone.release.safetensors import load_tensors
from voxclone.rng import step_generator
from voxclone.train.adapter.config import AdapterConfig
from voxclone.train.adapter.speech import open_fit_speech
from voxclone.tts.batch import Sampling
from voxclone.tts.generate import Request, generate_many
from voxclone.tts.text import frame_cap
from voxclone.tts.tts import TTS
from voxclone.voice.presets import preset_codes

MIN_FRAMES = 12
"""Of an utterance, about a second."""
SPEAKING_BATCH = 16


@dataclass(frozen=True)
class Inputs:
    """Where things lie: options of the command."""

    model: str
    encoder: Path | None
    speech: Path | None
    device: str = "auto"


@dataclass(frozen=True)
class KnownUtterance:
    """Speech of the release with a preset: its true codes [K, T], and what the encoder makes of
    their sound. The recording of a preset has no text."""

    preset: str
    text: str
    codes_KT: Tensor
    encoded_KT: Tensor


@dataclass(frozen=True)
class Material:
    """`clips` are the encoder's codes [K, T] of the clips of `speech`, by their number; `known`
    are utterances with a text, `recordings` those of presets, `presets` their embeddings [N, D].
    `notes` is what was found about the speech."""

    tts: TTS
    encoder_hash: str
    speech: Subset
    clips: dict[int, Tensor]
    presets: dict[str, Tensor]
    recordings: list[KnownUtterance]
    known: list[KnownUtterance]
    notes: dict[str, Any]


def gather(
    config: AdapterConfig,
    inputs: Inputs,
    release: Release,
    device: torch.device,
    out: Path,
    console: Console,
) -> Material:
    """Open, check and make what the config asks for; what is made goes into the folder `out`."""
    encoder = find_encoder(release, inputs.encoder)
    codec = load_codec(release, encoder).to(device)
    dtype = None if config.run.autocast else torch.float32
    tts = TTS.load(release, dtype=dtype, device=device, codec=codec)
    encoder_hash = codec.encoder_hash()
    speech, notes = open_fit_speech(
        inputs.speech, config.licenses, config.minutes, out / "speech", console
    )
    bar = _bar(console)
    identity = {"speech": speech.identity(), "encoder": encoder_hash}
    clips = encode_clips(codec, speech, out / "codes", identity, bar)
    presets = {name: load_preset(release, name) for name in preset_names(release)}
    if not presets:
        raise ConfigError(
            f"The release {release.path} has no presets, which an adapter must not harm: name a "
            "release with its presets."
        )
    true = preset_codes(release).codes if config.weights.distills else {}
    recordings = [
        KnownUtterance(name, "", codes_KT, encode_decoded(codec, codes_KT))
        for name, codes_KT in true.items()
    ]
    known = speak_presets(tts, presets, config, out / "utterances", bar)
    return Material(tts, encoder_hash, speech, clips, presets, recordings, known, notes)


@torch.inference_mode()
def encode_clips(
    codec: Codec,
    speech: Subset,
    folder: Path,
    identity: dict[str, Any],
    bar: Callable[[Iterable[int], str], Iterable[int]],
) -> dict[int, Tensor]:
    """The encoder's codes [K, T] (int16) of every clip, stored in `folder`."""
    path, facts = folder / "clips.safetensors", folder / "clips.json"
    if facts.is_file() and path.is_file() and read_json(facts) == identity:
        return {int(name): codes_KT for name, codes_KT in load_tensors(path).items()}
    found = {}
    for index in bar(speech.indices, "encoding"):
        wave_S = speech.corpus.wave(index).to(codec.device)
        found[index] = codec.encode(wave_S[None])[0].to("cpu", torch.int16).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file({str(index): codes_KT for index, codes_KT in found.items()}, temporary)
    with atomic_file(facts) as file:
        file.write(json.dumps(identity).encode())
    return found


@torch.inference_mode()
def encode_decoded(codec: Codec, codes_KT: Tensor) -> Tensor:
    """What the encoder makes of the sound of codes [K, T]."""
    wave_BS = codec.decode(codes_KT[None].long().to(codec.device)).float()
    return codec.encode(wave_BS)[0].to("cpu", torch.int16).contiguous()


def speak_presets(
    tts: TTS,
    presets: dict[str, Tensor],
    config: AdapterConfig,
    folder: Path,
    bar: Callable[[Iterable[int], str], Iterable[int]],
) -> list[KnownUtterance]:
    """Utterances of the frozen model, presets in turn, stored in `folder`. Those that do not end by
    themselves, or are too short or too long, are left out. Raises ConfigError if none is left."""
    path, facts = folder / "utterances.safetensors", folder / "utterances.json"
    texts, seed, names = read_texts(TEXTS), config.run.seed, list(presets)
    chosen = torch.randperm(len(texts), generator=step_generator(seed, 0, stream=7)).tolist()
    plan = [
        (names[number % len(names)], texts[chosen[number % len(texts)]])
        for number in range(config.utterances)
    ]
    identity = {"plan": plan, "seed": seed, "encoder": tts.codec.encoder_hash()}
    identity = json.loads(json.dumps(identity))
    if facts.is_file() and path.is_file() and read_json(facts) == identity:
        tensors = load_tensors(path)
    else:
        tensors = dict[str, Tensor]()
        for start in bar(range(0, len(plan), SPEAKING_BATCH), "speaking"):
            part = plan[start : start + SPEAKING_BATCH]
            with torch.inference_mode():
                requests = [
                    Request(
                        tts.prompt(text, presets[name]), stable_hash(f"{seed}/{start + i}"),
                        frame_cap(text, tts.codec.frame_rate), Sampling(),
                    )
                    for i, (name, text) in enumerate(part)
                ]  # fmt: skip
            made = generate_many(tts.backbone, tts.head, requests, SPEAKING_BATCH)
            for number, speech in sorted(made):
                frames = speech.codes_KT.shape[1]
                if not speech.truncated and MIN_FRAMES <= frames <= config.target_frames:
                    codes_KT = speech.codes_KT.to(torch.int16).contiguous()
                    tensors[f"{start + number}.true"] = codes_KT
                    tensors[f"{start + number}.read"] = encode_decoded(tts.codec, codes_KT)
        if not tensors:
            raise ConfigError(
                f"None of {len(plan)} utterances of the frozen model ends by itself within "
                f"{config.target_frames} frames: nothing can be compared with it."
            )
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            save_file(tensors, temporary)
        with atomic_file(facts) as file:
            file.write(json.dumps(identity).encode())
    numbers = sorted(int(name.removesuffix(".true")) for name in tensors if name.endswith(".true"))
    return [
        KnownUtterance(*plan[number], tensors[f"{number}.true"], tensors[f"{number}.read"])
        for number in numbers
    ]


def _bar(console: Console) -> Callable[[Iterable[int], str], Iterable[int]]:
    return lambda items, name: track(list(items), description=name, console=console)
