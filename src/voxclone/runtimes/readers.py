"""The rules by which each runtime finds and reads a voice, from the specification of its files.

A reader takes the input of the runtime (a release folder, a folder of voices or a file), the name
of the voice, and the release whose model speaks. Sources: checkpoint spec 2.6, 4.4, 5; ecosystem
spec 2; and the public files that are named at each reader.

Shapes: N frames of an embedding, D width, K codebooks, T frames of codes.
"""

from dataclasses import replace
from pathlib import Path

import torch

from voxclone.errors import ReleaseError
from voxclone.release.release import Release
from voxclone.release.safetensors import INTEGERS, TensorFiles, read_header
from voxclone.release.tensors import codebook_sizes, is_encoder
from voxclone.runtimes.containers import (
    Found,
    read_embedding,
    read_raw,
    read_stored,
    read_torch,
    tensor_names,
)
from voxclone.runtimes.reading import Reading, reading_of, self_counted
from voxclone.spec import VOICES
from voxclone.voice.embedding import voice_embedding

REAL_WIDTH = 3072
"""The width in the sources of voxtral-tts.c and faster-voxtral, whatever params.json says."""
ASSUMED_FRAMES = (218, 147)
"""Frames that ExecuTorch's program expects in a .bin file: its default voice, or its fallback."""
PRESETS = {
    *(f"{mood}_{sex}" for mood in ("casual", "neutral") for sex in ("female", "male")),
    *(f"{tongue}_{sex}" for tongue in ("pt", "nl", "it", "fr", "es", "de", "hi") for sex in
      ("female", "male")),
    "cheerful_female",
    "ar_male",
}  # fmt: skip
ALIASES = {  # voxtral_tts_rs, src/voice.rs
    "alloy": "neutral_female",
    "echo": "casual_male",
    "fable": "cheerful_female",
    "onyx": "neutral_male",
    "nova": "casual_female",
    "shimmer": "fr_female",
}


def voice_file(folder: Path, name: str, suffix: str) -> Path:
    """The file of a voice in a release folder."""
    return folder / VOICES / f"{name}{suffix}"


def read_vllm_omni(folder: Path, name: str, release: Release) -> Reading:
    """The preset path: the voice map of params.json, the count of tekken.json, and the `.pt`, which
    `torch.load` reads (models/voxtral_tts/voxtral_tts.py, tts_adapters/voxtral.py, 0.30)."""
    path = voice_file(folder, name, ".pt")
    embedding_ND, problems = read_torch(path, release.params.lm.dim)
    if name not in release.params.voices:
        problems.append(f"params.json does not name {name!r}, so it is not offered (error 400).")
    if name != name.lower():
        problems.append(
            f"Requests are put into lower case, so {name!r} is never found: rename the voice."
        )
    if name == "default":
        problems.append("'default' in a request means no voice: rename the voice.")
    problems += _uncounted(name, release)
    if release.report.encoder == "partial":
        problems.append(
            "Some tensors of the codec encoder are missing: they will be random numbers."
        )
    return reading_of(name, path, (embedding_ND, problems), release.voice_counts.get(name))


def read_mlx_audio(folder: Path, name: str, release: Release) -> Reading:
    """`voice_embedding/NAME.safetensors`; without it the model speaks with no voice
    (mlx_audio/tts/models/voxtral_tts/voxtral_tts.py, mlx_audio/utils.py)."""
    path = voice_file(folder, name, ".safetensors")
    if path.exists():
        embedding_ND, problems = read_embedding(path)
    else:
        also = " (the .pt is not looked at)" if voice_file(folder, name, ".pt").exists() else ""
        embedding_ND, problems = None, [f"{path} is missing{also}."]
    if embedding_ND is None:
        problems.append("It speaks without a voice, silently.")
    problems += _uncounted(name, release)
    if not (folder / "config.json").exists():
        problems.append(f"{folder} has no config.json and is not loaded: copy params.json to it.")
    if _tensors_of_encoder(folder):
        problems.append(
            f"{folder} holds a codec encoder, which is refused on loading: give the release "
            "without it."
        )
    return reading_of(name, path, (embedding_ND, problems), release.voice_counts.get(name))


def read_swift(path: Path, name: str, release: Release) -> Reading:
    """mlx-voxtral-swift with `--voice-embedding FILE`: `embedding`, else any tensor."""
    return self_counted(name, path, read_embedding(path))


def read_voxtral_c(folder: Path, name: str, release: Release) -> Reading:
    """voxtral-tts.c: the numbers in `voice_embedding/NAME.pt`, by their position in the zip and
    their size alone. For any error it speaks without a voice (voxtral_tts_voice.c)."""
    path = voice_file(folder, name, ".pt")
    if release.params.lm.dim != REAL_WIDTH:
        return self_counted(name, path, (None, _other_width("voxtral-tts.c", release)))
    embedding_ND, problems = read_stored(path, REAL_WIDTH)
    if embedding_ND is None:
        problems.append("It speaks without a voice; the exit code is 0.")
    else:
        problems += _differs_from_torch(path, embedding_ND)
    if not (folder / "consolidated.safetensors").exists():
        problems.append(f"{folder} has no consolidated.safetensors, the only file that is opened.")
    return self_counted(name, path, (embedding_ND, problems))


def read_voxtral_rs(folder: Path, name: str, release: Release) -> Reading:
    """voxtral_tts_rs: `NAME.safetensors`, for the 20 preset names else `NAME.pt`; the first tensor
    of an unordered map; aliases of OpenAI's names go first (src/voice.rs)."""
    own, torch_file = voice_file(folder, name, ".safetensors"), voice_file(folder, name, ".pt")
    path = own
    if own.exists():
        embedding_ND, problems = read_embedding(own)
        names = tensor_names(own)
        if len(names) > 1:
            problems.append(f"{own} holds {', '.join(sorted(names))}: any of them may be taken.")
    elif name in PRESETS:
        path = torch_file
        embedding_ND, problems = read_torch(torch_file, release.params.lm.dim)
    else:
        embedding_ND, problems = None, [f"{own} is missing, so the voice is not found."]
    if name.lower() in ALIASES:
        problems.append(f"{name!r} is another name of {ALIASES[name.lower()]!r} there: rename it.")
    notes = []
    if path == torch_file:
        notes.append("Builds for MLX read no .pt; those for libtorch do.")
    if name not in PRESETS:
        notes.append("Older builds know the names of the 20 presets only (--replace-preset).")
    reading = self_counted(name, path, (embedding_ND, problems))
    return replace(reading, notes=tuple(notes))


def read_faster(folder: Path, name: str, release: Release) -> Reading:
    """faster-voxtral with `--voice-dir FOLDER`: every `.pt` by `torch.load`; one that fails is left
    out with a warning (voxtral/tts.py)."""
    path = folder / f"{name}.pt"
    if release.params.lm.dim != REAL_WIDTH:
        return self_counted(name, path, (None, _other_width("faster-voxtral", release)))
    return self_counted(name, path, read_torch(path, REAL_WIDTH))


def read_executorch(folder: Path, name: str, release: Release) -> Reading:
    """ExecuTorch's runner with `--voice FOLDER/NAME.bin`: raw frames, whose number it compares with
    that of a `.pt` beside it, else with its program's (voxtral_tts_runner.cpp, voice.py)."""
    path, peer = folder / f"{name}.bin", folder / f"{name}.pt"
    dim = release.params.lm.dim
    peer_ND = read_stored(peer, dim, small=True)[0] if peer.exists() else None
    expected = ASSUMED_FRAMES if peer_ND is None else (len(peer_ND),)
    embedding_ND, problems = read_raw(path, dim, expected)
    if peer_ND is not None and embedding_ND is not None and not torch.equal(peer_ND, embedding_ND):
        problems.append(f"{peer} holds another embedding; a request by name reads that one.")
    return self_counted(name, path, (embedding_ND, problems))


def read_comfyui(folder: Path, name: str, release: Release) -> Reading:
    """The two node packs: a fixed list of names, `voice_embedding/NAME.pt` by `torch.load`,
    positions by tekken.json (filliptm/ComfyUI-FL-VoxtralTTS, sienadrayy/VoxtralTTS-ComfyUI)."""
    path = voice_file(folder, name, ".pt")
    embedding_ND, problems = read_torch(path, release.params.lm.dim)
    if name not in PRESETS:
        problems.append(
            f"The nodes offer the 20 preset names only, not {name!r}: export it with "
            "--replace-preset."
        )
    problems += _uncounted(name, release)
    return reading_of(name, path, (embedding_ND, problems), release.voice_counts.get(name))


def read_codes(path: Path, name: str, release: Release) -> Reading:
    """Raw codes: `codes` [T, K], embedded with the release's own table."""
    try:
        return self_counted(name, path, _embedded_codes(path, release))
    except ReleaseError as error:
        return self_counted(name, path, (None, [str(error)]))


def _embedded_codes(path: Path, release: Release) -> Found:
    header, sizes = read_header(path), codebook_sizes(release.params)
    info = header.tensors.get("codes")
    if info is None or info.dtype not in INTEGERS or len(info.shape) != 2:
        return None, [f"{path} has no integers 'codes' [T, K]."]
    if info.shape[1] != len(sizes) or not info.shape[0]:
        shape = list(info.shape)
        return None, [f"{path} has codes {shape}, but the release has {len(sizes)} codebooks."]
    codes_KT = TensorFiles([header]).load("codes").long().T
    if bool((codes_KT < 0).any()) or bool((codes_KT >= torch.tensor(sizes)[:, None]).any()):
        return None, [f"{path} has codes that the release's codebooks do not have."]
    return voice_embedding(codes_KT, release), []


def _other_width(runtime: str, release: Release) -> list[str]:
    return [
        f"{runtime} is written for a model of width {REAL_WIDTH}, and that of the release is "
        f"{release.params.lm.dim} wide: it cannot run it."
    ]


def _uncounted(name: str, release: Release) -> list[str]:
    if name in release.voice_counts:
        return []
    return [f"tekken.json has no frame count for {name!r}, so mistral-common refuses the voice."]


def _differs_from_torch(path: Path, embedding_ND: torch.Tensor) -> list[str]:
    """A problem if the file describes another tensor than all of its bytes."""
    described_ND, problems = read_torch(path, embedding_ND.shape[1])
    if described_ND is None or not torch.equal(described_ND, embedding_ND):
        found = f"It takes all {len(embedding_ND)} frames that the file stores."
        return [f"{found} But: {' '.join(problems)}"]
    return []


def _tensors_of_encoder(folder: Path) -> bool:
    files = sorted(folder.glob("*.safetensors"))
    return any(is_encoder(name) for path in files for name in tensor_names(path))
