"""A finished run of the recipe becomes what is packaged: a release, its oracle, and two networks.

The release has the file layout of the real one and withholds the encoder. The encoder goes into a
folder of its own, for evaluation alone.

Shapes: S samples, K codebooks, T frames.
"""

import json
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from recipes.mini_release.layout import SPECIAL_TOKENS, mini_params, small_tekken
from recipes.mini_release.layout import to_json as params_json
from recipes.mini_release.run import Run
from recipes.mini_release.speaker_network import save_speaker_network
from voxclone.codec.model import Codec
from voxclone.errors import ConfigError
from voxclone.io import atomic_folder
from voxclone.release.encoder_file import save_encoder
from voxclone.release.params import Params
from voxclone.release.presets import write_preset
from voxclone.release.release import Release
from voxclone.release.safetensors_writer import Entry, write_safetensors
from voxclone.release.tensors import codebook_offsets, expected_tensors
from voxclone.spec import CODEC, TABLE, VOICES
from voxclone.tts.backbone import from_transformers
from voxclone.voice.embedding import embed_codes

PAUSE_SECONDS = 0.2
PRESET_CLIPS = 7
"""A preset has clips from so many parts of a recording session."""


def publish(run: Run, target: Path) -> None:
    """Write `release/`, `oracle/`, `recognizer/` and `voices/` (the speaker network) into the
    folder `target`, all or nothing. What an earlier call wrote there is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(target, replace=True) as made:
        _write(run, made)


def _write(run: Run, folder: Path) -> None:
    settings, codec = run.settings, run.codec("decoder").cpu()
    found = run.finished("speech").tensors
    speech = {k.removeprefix("module."): v for k, v in found.items() if k.startswith("module.")}
    voices = {name: number for number, name in enumerate(settings.presets)}
    params = mini_params(settings.language_model, settings.codec, voices)
    tensors = release_tensors(params, codec, speech)
    release = folder / "release"
    (release / VOICES).mkdir(parents=True)
    counts = {}
    for name, speaker in settings.presets.items():
        codes_KT = preset_codes(run, codec, speaker)
        embedding = embed_codes(codes_KT, tensors[TABLE], codebook_offsets(params))
        write_preset(release / VOICES / f"{name}.pt", embedding)
        counts[name] = len(embedding)
    _write_json(release / "params.json", params_json(params))
    _write_json(release / "tekken.json", small_tekken(counts, special_tokens=SPECIAL_TOKENS))
    entries = [
        Entry(name, torch.bfloat16, tuple(tensor.shape), partial(_same, tensor))
        for name, tensor in tensors.items()
    ]
    write_safetensors(release / "consolidated.safetensors", entries)
    state = {CODEC + name: value for name, value in codec.require_encoder().state_dict().items()}
    facts = {"role": "oracle: the true encoder, put aside", "stage": "codec"}
    path = folder / "oracle" / "encoder.safetensors"
    save_encoder(path, state, Release.open(release), facts)
    recognizer = run.recognizer().cpu()
    (folder / "recognizer").mkdir()
    weights = {k: v.to(torch.bfloat16).contiguous() for k, v in recognizer.state_dict().items()}
    save_file(weights, folder / "recognizer" / "recognizer.safetensors")
    _write_json(folder / "recognizer" / "config.json", recognizer.config.model_dump())
    save_speaker_network(run.speaker_network().cpu(), folder / "voices")


def release_tensors(params: Params, codec: Codec, speech: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor of the release in bf16, in the order of `expected_tensors`. Raises ConfigError
    if a tensor is missing or has another shape."""
    found: dict[str, Tensor] = {}
    for name, tensor in speech.items():
        part, _, inner = name.partition(".")
        if part == "head":
            found[f"acoustic_transformer.{inner}"] = tensor
        else:
            ours, value = from_transformers(inner, tensor, params)
            found[ours] = value
    for prefix, module in (("", codec.decoder), ("quantizer.", codec.quantizer)):
        for name, tensor in module.state_dict().items():
            found[f"{CODEC}{prefix}{name}"] = tensor
    shapes = expected_tensors(params)
    if {name: tuple(t.shape) for name, t in found.items()} != shapes:
        wrong = sorted(set(found) ^ set(shapes))[:5]
        raise ConfigError(f"The run does not fit its settings; tensors that differ: {wrong}.")
    return {name: found[name].to(torch.bfloat16).contiguous() for name in shapes}


def preset_codes(run: Run, codec: Codec, speaker: str) -> Tensor:
    """Codes [K, T] of clips of a training speaker, joined with short pauses."""
    indices = run.split("train", lambda clip: clip.speaker == speaker).indices
    wanted = run.settings.preset_seconds * codec.sampling_rate
    pause_S = torch.zeros(round(PAUSE_SECONDS * codec.sampling_rate))
    parts: list[Tensor] = []
    for index in indices[:: max(1, len(indices) // PRESET_CLIPS)]:
        if sum(len(part) for part in parts) >= wanted:
            break
        parts += [run.corpus.wave(index), pause_S]
    with torch.inference_mode():
        return codec.encode(torch.cat(parts)[None])[0]


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
