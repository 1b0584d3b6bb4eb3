"""Writers of the files or folders that runtimes read.

Shapes: N frames, D width, K codebooks, T frames.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from voxclone.errors import ReleaseError, UsageError
from voxclone.io import atomic_file, hard_link
from voxclone.release.presets import read_preset, write_preset
from voxclone.release.release import Release
from voxclone.release.safetensors_writer import Entry, write_safetensors
from voxclone.release.tekken import read_tekken, voice_counts
from voxclone.runtimes.readers import voice_file
from voxclone.spec import VOICES
from voxclone.voice.resolve import ResolvedVoice


def write_release(voice: ResolvedVoice, name: str, release: Release, folder: Path) -> None:
    """Put the voice into `folder`, a copy of `release`, as its preset `name`: the `.pt`, the map of
    params.json and the count of tekken.json agree (checkpoint spec, 4.4)."""
    for stale in (folder / VOICES).glob(f"{name}.*"):
        stale.unlink()
    params = json.loads((release.path / "params.json").read_text(encoding="utf-8"))
    voices: dict[str, int] = params["multimodal"]["audio_tokenizer_args"].setdefault("voice", {})
    voices.setdefault(name, max(voices.values(), default=-1) + 1)
    _write_json(folder / "params.json", params)
    tekken = read_tekken(release.path / "tekken.json")
    if "audio" not in tekken:
        raise ReleaseError(f"{release.path / 'tekken.json'} has no audio section: fetch it again.")
    counts = voice_counts(tekken) | {name: len(voice.embedding_ND)}
    tekken["audio"]["voice_num_audio_tokens"] = counts
    _write_json(folder / "tekken.json", tekken)
    write_preset(voice_file(folder, name, ".pt"), voice.embedding_ND)


def write_release_with_embedding(
    voice: ResolvedVoice, name: str, release: Release, folder: Path
) -> None:
    """As `write_release`, and the voice as safetensors beside it."""
    write_release(voice, name, release, folder)
    write_embedding(voice, name, release, voice_file(folder, name, ".safetensors"))


def write_mlx_release(voice: ResolvedVoice, name: str, release: Release, folder: Path) -> None:
    """As `write_release_with_embedding`, with every preset as safetensors, because mlx-audio reads
    no `.pt`, and with the config.json that it asks for. Raises UsageError for a release with a
    codec encoder, since mlx-audio refuses unknown tensors."""
    if release.report.encoder != "withheld":
        raise UsageError(
            f"mlx-audio refuses the codec encoder that is in {release.path}: export for a release "
            "without it."
        )
    write_release_with_embedding(voice, name, release, folder)
    for preset in sorted((folder / VOICES).glob("*.pt")):
        target = preset.with_suffix(".safetensors")
        if not target.exists():
            own = ResolvedVoice(preset.stem, read_preset(preset, release.params.lm.dim), None)
            write_embedding(own, preset.stem, release, target)
    if not (folder / "config.json").exists():
        (folder / "config.json").write_bytes((folder / "params.json").read_bytes())


def write_embedding(voice: ResolvedVoice, name: str, release: Release, path: Path) -> None:
    """One tensor `embedding` [N, D] in bf16, and nothing beside it: some readers take the first."""
    embedding_ND = voice.embedding_ND
    entry = Entry("embedding", torch.bfloat16, tuple(embedding_ND.shape), lambda: embedding_ND)
    write_safetensors(path, [entry], _metadata(voice))


def write_torch_folder(voice: ResolvedVoice, name: str, release: Release, folder: Path) -> None:
    """`NAME.pt` in a folder that may hold other voices."""
    folder.mkdir(exist_ok=True)
    write_preset(folder / f"{name}.pt", voice.embedding_ND)


def write_raw_folder(voice: ResolvedVoice, name: str, release: Release, folder: Path) -> None:
    """`NAME.bin`, raw little-endian bf16, and the `.pt` beside it, by which ExecuTorch's runner
    counts the frames."""
    write_torch_folder(voice, name, release, folder)
    with atomic_file(folder / f"{name}.bin") as file:
        file.write(voice.embedding_ND.contiguous().view(torch.uint8).numpy().tobytes())


def write_codes(voice: ResolvedVoice, name: str, release: Release, path: Path) -> None:
    """`codes` [T, K] int16, frames first, without the shift and without the END frame."""
    if voice.source is None:
        raise UsageError(f"{voice.name!r} is a preset, which holds no codes: name a voice file.")
    codes_TK = voice.source.codes_KT.T.to(torch.int16).contiguous()
    entry = Entry("codes", torch.int16, tuple(codes_TK.shape), lambda: codes_TK)
    write_safetensors(path, [entry], _metadata(voice))


def _metadata(voice: ResolvedVoice) -> dict[str, str] | None:
    """Name, consent and origin for the header."""
    return None if voice.source is None else {"voxclone": voice.source.metadata.model_dump_json()}


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def copy_release(source: Path, target: Path, *, symbolic: bool = False) -> None:
    """Put the files of the release folder `source` and of its `voice_embedding` into `target`.

    Tensor files become hard links where the file system allows it, or symbolic links if asked for,
    so that an 8 GB release costs no space. Small files are copied, because they may be written
    again."""
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            own = target / path.name
            if path.suffix == ".safetensors" and symbolic:
                own.symlink_to(path.resolve())
            elif path.suffix != ".safetensors" or not hard_link(path, own):
                shutil.copyfile(path, own)
    voices = target / VOICES
    voices.mkdir()
    for path in sorted((source / voices.name).glob("[!.]*")):
        if path.is_file():
            shutil.copyfile(path, voices / path.name)
