"""A complete release of a few hundred kilobytes, with random weights, written in milliseconds."""

import json
import shutil
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from recipes.mini_release.layout import small_tekken, to_json
from voxclone.codec.config import CodecConfig
from voxclone.release.params import (
    AcousticConfig,
    AudioEncodingConfig,
    AudioModelConfig,
    LanguageModelConfig,
    Params,
)
from voxclone.release.presets import write_preset
from voxclone.release.safetensors_writer import Entry, write_safetensors
from voxclone.release.tensors import Shapes, encoder_tensors, expected_tensors

VOICES = {"anna": 9, "bert": 14, "carla": 5}
SPECIAL_TOKENS = 40


def tiny_params(**codec: object) -> Params:
    """Every width differs from every other where it may, so that a mix-up shows in a shape."""
    settings = {
        "pretransform_patch_size": 30,
        "patch_proj_kernel_size": 5,
        "semantic_codebook_size": 50,
        "semantic_dim": 12,
        "acoustic_dim": 6,
        "dim": 20,
        "hidden_dim": 36,
        "head_dim": 8,
        "n_heads": 4,
        "n_kv_heads": 2,
        "layer_scale_init": 0.01,
        **codec,
    }
    config = CodecConfig.from_params(settings)
    return Params(
        lm=LanguageModelConfig(
            dim=28,
            n_layers=2,
            head_dim=6,
            hidden_dim=44,
            n_heads=4,
            n_kv_heads=2,
            rope_theta=1e6,
            norm_eps=1e-5,
            vocab_size=SPECIAL_TOKENS + 256,
            tied_embeddings=True,
        ),
        audio=AudioModelConfig(
            semantic_codebook_size=config.semantic_codebook_size,
            acoustic_codebook_size=config.acoustic_codebook_size,
            n_acoustic_codebook=config.acoustic_dim,
            audio_token_id=24,
            begin_audio_token_id=25,
            encoding=AudioEncodingConfig(
                num_codebooks=config.num_codebooks,
                sampling_rate=config.sampling_rate,
                frame_rate=config.frame_rate,
            ),
            acoustic=AcousticConfig(
                input_dim=28,
                dim=28,
                n_layers=1,
                head_dim=10,
                hidden_dim=32,
                n_heads=6,
                n_kv_heads=3,
            ),
        ),
        codec=config,
        voices={name: index for index, name in enumerate(VOICES)},
        bos_token_id=1,
    )


def random_entries(
    shapes: Shapes, seed: int = 0, dtype: torch.dtype = torch.bfloat16
) -> list[Entry]:
    """Entries that draw each tensor when it is written; a name gets the same values anywhere."""
    return [
        Entry(name, dtype, shape, partial(_draw, name, shape, seed, dtype))
        for name, shape in shapes.items()
    ]


def write_tiny_release(
    folder: Path, *, params: Params | None = None, with_encoder: bool = False
) -> Path:
    """Write a release into `folder` (created) and return it."""
    params = params or tiny_params()
    folder.mkdir(parents=True)
    (folder / "params.json").write_text(json.dumps(to_json(params)), encoding="utf-8")
    tekken = small_tekken(
        VOICES,
        special_tokens=SPECIAL_TOKENS,
        sampling_rate=params.audio.sampling_rate,
        frame_rate=params.audio.frame_rate,
    )
    (folder / "tekken.json").write_text(json.dumps(tekken), encoding="utf-8")
    shapes = expected_tensors(params) | (encoder_tensors(params) if with_encoder else {})
    write_safetensors(folder / "consolidated.safetensors", random_entries(shapes))
    (folder / "voice_embedding").mkdir()
    for name, frames in VOICES.items():
        embedding_ND = preset_embedding(name, frames, params)
        write_preset(folder / "voice_embedding" / f"{name}.pt", embedding_ND)
    return folder


def write_relative(folder: Path, release: Path, changed: tuple[str, ...]) -> Path:
    """Write a release like another one but for the values of some tensors."""
    shutil.copytree(release, folder)
    shapes = expected_tensors(tiny_params())
    entries = random_entries({name: shape for name, shape in shapes.items() if name not in changed})
    entries += random_entries({name: shapes[name] for name in changed}, seed=7)
    write_safetensors(folder / "consolidated.safetensors", entries)
    return folder


def write_encoder(path: Path, params: Params, *, prefix: bool = True) -> Path:
    """Write an encoder of its own, with names as in a release or as in `Encoder.state_dict()`."""
    entries = random_entries(encoder_tensors(params), seed=1)
    if not prefix:
        entries = [e._replace(name=e.name.removeprefix("audio_tokenizer.")) for e in entries]
    write_safetensors(path, entries)
    return path


def preset_embedding(name: str, frames: int, params: Params) -> Tensor:
    """The embedding that the tiny release has for a preset."""
    return _draw(name, (frames, params.lm.dim), 0, torch.bfloat16)


def _draw(name: str, shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(name.encode()) * 1000 + len(name))
    values = torch.randn(shape, generator=generator)
    return (values.abs() if name.endswith(("cluster_usage", "original0")) else values).to(dtype)
