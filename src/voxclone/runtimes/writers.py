"""A voice in the file or folder that a runtime reads.

Shapes: N rows, D width, K code books, T frames.
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
from voxclone.release.safetensors import Entry, write_safetensors
from voxclone.release.tekken import read_tekken, row_counts
from voxclone.runtimes.readers import voice_file
from voxclone.spec import VOICES
from voxclone.voice.resolve import Chosen


def write_release(chosen: Chosen, name: str, release: Release, folder: Path) -> None:
    """Fill the empty `folder` with `release` and the voice as its preset `name`: the `.pt`, the map
    of params.json and the count of tekken.json agree (checkpoint spec, 4.4)."""
    link_release(release.path, folder)
    for stale in (folder / VOICES).glob(f"{name}.*"):
        stale.unlink()
    params = json.loads((release.path / "params.json").read_text(encoding="utf-8"))
    voices: dict[str, int] = params["multimodal"]["audio_tokenizer_args"].setdefault("voice", {})
    voices.setdefault(name, max(voices.values(), default=-1) + 1)
    _write_json(folder / "params.json", params)
    tekken = read_tekken(release.path / "tekken.json")
    if "audio" not in tekken:
        raise ReleaseError(f"{release.path / 'tekken.json'} has no audio section: fetch it again.")
    counts = row_counts(tekken) | {name: len(chosen.rows_ND)}
    tekken["audio"]["voice_num_audio_tokens"] = counts
    _write_json(folder / "tekken.json", tekken)
    write_preset(voice_file(folder, name, ".pt"), chosen.rows_ND)


def write_release_with_embedding(chosen: Chosen, name: str, release: Release, folder: Path) -> None:
    """As `write_release`, and the voice as safetensors beside it."""
    write_release(chosen, name, release, folder)
    write_embedding(chosen, name, release, voice_file(folder, name, ".safetensors"))


def write_mlx_release(chosen: Chosen, name: str, release: Release, folder: Path) -> None:
    """As `write_release_with_embedding`, with every preset as safetensors, because mlx-audio reads
    no `.pt`, and with the config.json that it asks for. The codec encoder stays behind: mlx-audio
    refuses tensors that it does not know."""
    if release.report.encoder != "withheld":
        raise UsageError(
            f"mlx-audio refuses the codec encoder that is in {release.path}: export for a release "
            "without it."
        )
    write_release_with_embedding(chosen, name, release, folder)
    for preset in sorted((folder / VOICES).glob("*.pt")):
        target = preset.with_suffix(".safetensors")
        if not target.exists():
            rows_ND = read_preset(preset, release.params.lm.dim)
            write_embedding(Chosen(preset.stem, rows_ND, None), preset.stem, release, target)
    if not (folder / "config.json").exists():
        (folder / "config.json").write_bytes((folder / "params.json").read_bytes())


def write_embedding(chosen: Chosen, name: str, release: Release, path: Path) -> None:
    """One tensor `embedding` [N, D] in bf16, and nothing beside it: some readers take the first."""
    rows_ND = chosen.rows_ND
    entry = Entry("embedding", torch.bfloat16, tuple(rows_ND.shape), lambda: rows_ND)
    write_safetensors(path, [entry], _facts(chosen))


def write_torch_folder(chosen: Chosen, name: str, release: Release, folder: Path) -> None:
    """`NAME.pt` in a folder that may hold other voices."""
    folder.mkdir(exist_ok=True)
    write_preset(folder / f"{name}.pt", chosen.rows_ND)


def write_raw_folder(chosen: Chosen, name: str, release: Release, folder: Path) -> None:
    """`NAME.bin`, raw little-endian bf16, and beside it the `.pt` by which ExecuTorch's runner
    makes sure how many rows there are."""
    write_torch_folder(chosen, name, release, folder)
    with atomic_file(folder / f"{name}.bin") as file:
        file.write(chosen.rows_ND.contiguous().view(torch.uint8).numpy().tobytes())


def write_codes(chosen: Chosen, name: str, release: Release, path: Path) -> None:
    """`codes` [T, K] int16, frames first, without the shift and without the END frame."""
    if chosen.voice is None:
        raise UsageError(f"{chosen.name!r} is a preset, which holds no codes: name a voice file.")
    codes_TK = chosen.voice.codes_KT.T.to(torch.int16).contiguous()
    entry = Entry("codes", torch.int16, tuple(codes_TK.shape), lambda: codes_TK)
    write_safetensors(path, [entry], _facts(chosen))


def _facts(chosen: Chosen) -> dict[str, str] | None:
    """Name, consent and origin, for the header."""
    return None if chosen.voice is None else {"voxclone": chosen.voice.facts.model_dump_json()}


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def link_release(source: Path, target: Path) -> None:
    """Put the files of the release folder `source` and of its `voice_embedding` into `target`.

    Tensor files are hard links where the file system allows it and copies elsewhere, so an 8 GB
    release costs no space; everything small is copied, because it may be written again."""
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            own = target / path.name
            if path.suffix != ".safetensors" or not hard_link(path, own):
                shutil.copyfile(path, own)
    voices = target / VOICES
    voices.mkdir()
    for path in sorted((source / voices.name).glob("[!.]*")):
        if path.is_file():
            shutil.copyfile(path, voices / path.name)
