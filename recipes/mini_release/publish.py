"""Stage 4: a finished run of the recipe becomes a release, and its encoder the oracle.

The release has the file layout of the real one and withholds the encoder. The encoder goes into a
folder of its own, for evaluation alone; the recogniser and the network that tells speakers apart
go beside it.

Shapes: S samples, K code books, T frames, N rows, D width.
"""

import json
import shutil
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from recipes.mini_release.files import from_transformers, small_tekken, to_json
from recipes.mini_release.layout import SPECIAL_TOKENS, mini_params
from recipes.mini_release.workshop import (
    Workshop,
    finished_codec,
    finished_recogniser,
    finished_speech,
    finished_voices,
)
from voxclone.codec.model import Codec
from voxclone.errors import ConfigError
from voxclone.models.speaker_network import save_speaker_network
from voxclone.release.encoder_file import save_encoder
from voxclone.release.params import Params
from voxclone.release.presets import write_preset
from voxclone.release.release import Release
from voxclone.release.safetensors import Entry, write_safetensors
from voxclone.release.tensors import codebook_offsets, expected_tensors
from voxclone.spec import CODEC, TABLE
from voxclone.voice.embedding import embed_codes

PAUSE_SECONDS = 0.2


def publish(shop: Workshop, target: Path) -> None:
    """Write `release/`, `oracle/encoder.safetensors`, `recogniser/` and `voices/` into `target`,
    replacing what an earlier call wrote there."""
    codec = finished_codec(shop)
    speech = finished_speech(shop)
    voices = {name: index for index, name in enumerate(shop.settings.presets)}
    params = mini_params(shop.settings, voices)
    tensors = release_tensors(params, codec, speech)
    rows = {
        name: embed_codes(
            preset_codes(shop, codec, speaker), tensors[TABLE], codebook_offsets(params)
        )
        for name, speaker in shop.settings.presets.items()
    }
    target.mkdir(parents=True, exist_ok=True)
    release = target / "release.tmp"
    shutil.rmtree(release, ignore_errors=True)
    (release / "voice_embedding").mkdir(parents=True)
    _write_json(release / "params.json", to_json(params))
    counts = {name: len(row) for name, row in rows.items()}
    _write_json(release / "tekken.json", small_tekken(counts, special_tokens=SPECIAL_TOKENS))
    entries = [
        Entry(name, torch.bfloat16, tuple(tensor.shape), partial(_same, tensor))
        for name, tensor in tensors.items()
    ]
    write_safetensors(release / "consolidated.safetensors", entries)
    for name, row in rows.items():
        write_preset(release / "voice_embedding" / f"{name}.pt", row)
    shutil.rmtree(target / "release", ignore_errors=True)
    release.rename(target / "release")
    state = {CODEC + k: v for k, v in codec.require_encoder().state_dict().items()}
    facts = {"role": "oracle: the true encoder, put aside", "stage": "codec"}
    opened = Release.open(target / "release")
    save_encoder(target / "oracle" / "encoder.safetensors", state, opened, facts)
    _write_recogniser(shop, target / "recogniser")
    save_speaker_network(finished_voices(shop), target / "voices")


def release_tensors(params: Params, codec: Codec, speech: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor of the release in bf16, in the order of `expected_tensors`."""
    found: dict[str, Tensor] = {}
    for name, tensor in speech.items():
        part, _, inner = name.partition(".")
        if part == "head":
            found[f"acoustic_transformer.{inner}"] = tensor
        else:
            ours, value = from_transformers(inner, tensor, params)
            found[ours] = value
    for prefix, part_module in (("", codec.decoder), ("quantizer.", codec.quantizer)):
        for name, tensor in part_module.state_dict().items():
            found[f"{CODEC}{prefix}{name}"] = tensor
    shapes = expected_tensors(params)
    if {name: tuple(t.shape) for name, t in found.items()} != shapes:
        wrong = sorted(set(found) ^ set(shapes))[:5]
        raise ConfigError(f"The run does not fit its settings; tensors that differ: {wrong}.")
    return {name: found[name].to(torch.bfloat16).contiguous() for name in shapes}


def preset_codes(shop: Workshop, codec: Codec, speaker: str) -> Tensor:
    """Codes [K, T] of clips of a training speaker, joined with short pauses."""
    subset = shop.corpus.subset(
        lambda c: c.speaker == speaker and c.split == "train" and shop.licensed(c)
    )
    wanted = shop.settings.preset_seconds * codec.sampling_rate
    pause_S = torch.zeros(round(PAUSE_SECONDS * codec.sampling_rate))
    parts: list[Tensor] = []
    indices = subset.indices
    step = max(1, len(indices) // 7)  # clips from all over the recording session
    for index in indices[::step]:
        if sum(len(part) for part in parts) >= wanted:
            break
        parts += [shop.corpus.wave(index), pause_S]
    with torch.inference_mode():
        return codec.encode(torch.cat(parts)[None])[0]


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _write_recogniser(shop: Workshop, folder: Path) -> None:
    recogniser = finished_recogniser(shop)
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.to(torch.bfloat16).contiguous() for k, v in recogniser.state_dict().items()}
    save_file(state, folder / "recogniser.safetensors")
    _write_json(folder / "config.json", recogniser.config.model_dump())


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
