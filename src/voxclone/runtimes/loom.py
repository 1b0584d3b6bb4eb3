"""Voices of loom.cpp: a GGUF file with a voice embedding and a fingerprint of the model that it is
for (loom_exporter/voxtral_tts_voices.py).

Shapes: N frames, D width.
"""

import functools
import hashlib
from pathlib import Path

import torch

from voxclone.errors import VoiceError
from voxclone.io import pieces
from voxclone.release.release import Release
from voxclone.release.safetensors import TensorFiles
from voxclone.runtimes.containers import Found
from voxclone.runtimes.gguf import read_gguf, write_gguf
from voxclone.runtimes.reading import Reading, self_counted
from voxclone.voice.resolve import ResolvedVoice

FILE, MODEL, TENSOR = "loom-voice", "voxtral_tts", "voice"
LICENSE = "CC-BY-NC-4.0"
FINGERPRINTED = ("layers.", "norm.", "mm_audio_embeddings.")


def write_loom(voice: ResolvedVoice, name: str, release: Release, path: Path) -> None:
    """One flat tensor `voice` of N x D numbers, with name, license, origin and fingerprint."""
    consent = None if voice.source is None else voice.source.metadata.consent
    origin = f"voxclone, consent: {consent.kind}, {consent.statement}" if consent else "a preset"
    values: dict[str, str | int] = {
        "general.architecture": FILE,
        "loom.voice.architecture": MODEL,
        "loom.voice.compat": fingerprint(release),
        "loom.voice.name": name,
        "loom.voice.license": LICENSE,
        "loom.voice.origin": origin,
        "loom.voice.n_rows": len(voice.embedding_ND),
    }
    write_gguf(path, values, TENSOR, voice.embedding_ND.float().flatten().numpy())


def read_loom(path: Path, name: str, release: Release) -> Reading:
    """As loom.cpp reads it (`loom::load_voice`): a voice for another model is refused by its
    fingerprint."""
    found, values = read_gguf_voice(path, release.params.lm.dim)
    problems = list(found[1])
    compat = values.get("loom.voice.compat")
    if compat is not None and compat != fingerprint(release):
        problems.append(
            f"It was made for other weights than those of {release.path}: loom.cpp refuses it."
        )
    return self_counted(str(values.get("loom.voice.name", name)), path, (found[0], problems))


def read_gguf_voice(path: Path, width: int) -> tuple[Found, dict[str, object]]:
    """The embedding [N, D] of a voice, problems with them, and the values of the file."""
    try:
        file = read_gguf(path)
    except VoiceError as error:
        return (None, [str(error)]), {}
    values = file.values
    kinds = (values.get("general.architecture"), values.get("loom.voice.architecture"), file.name)
    if kinds != (FILE, MODEL, TENSOR):
        return (None, [f"{path} is no voice of loom.cpp for Voxtral: it holds {kinds!r}."]), values
    if values.get("loom.voice.n_rows") != file.tensor.size / width or not file.tensor.size:
        return (None, [f"{path} has {file.tensor.size} numbers, no rows of {width}."]), values
    return (torch.from_numpy(file.tensor).view(-1, width), []), values


def fingerprint(release: Release) -> str:
    """32 hexadecimal digits for the language model and the code embeddings, by their stored
    bytes."""
    return _fingerprint(release.files)


@functools.lru_cache(maxsize=4)  # gigabytes are read for it, when a voice is written and checked
def _fingerprint(files: TensorFiles) -> str:
    digest = hashlib.sha256()
    names = (name for name in files.tensors if name.startswith(FINGERPRINTED))
    for name in sorted(names):
        info = files.header_of(name).tensors[name]
        digest.update(f"{name}|{info.dtype}|{list(info.shape)}|".encode())
        with info.path.open("rb", buffering=0) as file:
            for piece in pieces(file, info.start, info.stop):
                digest.update(piece)
    return digest.hexdigest()[:32]
