"""The runtimes: the input of each, how it reads it, and its limits."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from voxclone.errors import UsageError
from voxclone.release.release import Release
from voxclone.runtimes import loom, readers, writers
from voxclone.runtimes.reading import Reading
from voxclone.voice.resolve import ResolvedVoice

Input = Literal["release", "voices", "file"]


@dataclass(frozen=True)
class Runtime:
    """A program that runs the model, or a format for voices.

    `input` is a whole release folder, a folder of voices, or a file ending in `suffix`. `reads`
    describes what it reads of it. `context` is its number of positions for voice, text and speech.
    `mismatch` is what it does when frames and positions differ. `use` is the command that speaks.
    """

    name: str
    input: Input
    suffix: str
    reads: str
    write: Callable[[ResolvedVoice, str, Release, Path], None]
    read: Callable[[Path, str, Release], Reading]
    use: str
    context: int = 4096
    mismatch: str = "it is not run"
    presets_only: bool = False


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            "vllm-omni",
            "release",
            ".pt",
            "the map of params.json, the count of tekken.json and voice_embedding/NAME.pt",
            writers.write_release,
            readers.read_vllm_omni,
            "vllm serve {out} --omni, then POST /v1/audio/speech with \"voice\": \"{name}\"",
            mismatch="the request fails, or the frames are merged wrongly",
        ),
        Runtime(
            "mlx-audio",
            "release",
            ".safetensors",
            "the count of tekken.json and voice_embedding/NAME.safetensors",
            writers.write_mlx_release,
            readers.read_mlx_audio,
            "python -m mlx_audio.tts.generate --model {out} --voice {name} --text \"...\"",
            mismatch="frames are cut or the last one is repeated, silently",
        ),
        Runtime(
            "mlx-voxtral-swift",
            "file",
            ".safetensors",
            "the tensor 'embedding' of a file",
            writers.write_embedding,
            readers.read_swift,
            "voxtral tts --voice-embedding {out} \"...\"",
        ),
        Runtime(
            "voxtral-tts.c",
            "release",
            ".pt",
            "the stored bytes of voice_embedding/NAME.pt",
            writers.write_release,
            readers.read_voxtral_c,
            "./voxtral_tts -d {out} -v {name} -o out.wav \"...\"",
            context=8192,
        ),
        Runtime(
            "voxtral_tts_rs",
            "release",
            ".safetensors",
            "voice_embedding/NAME.safetensors, else NAME.pt for the 20 preset names",
            writers.write_release_with_embedding,
            readers.read_voxtral_rs,
            "voxtral-tts {out} --voice {name} --text \"...\"",
        ),
        Runtime(
            "faster-voxtral",
            "voices",
            ".pt",
            "every .pt of a folder",
            writers.write_torch_folder,
            readers.read_faster,
            "python server.py --voice-dir {out}, then POST /v1/audio/speech with \"voice\": "
            "\"{name}\"",
        ),
        Runtime(
            "executorch",
            "voices",
            ".bin",
            "the raw frames of NAME.bin, counted by NAME.pt beside it",
            writers.write_raw_folder,
            readers.read_executorch,
            "voxtral_tts_runner --voice {out}/{name}.bin --text \"...\"",
        ),
        Runtime(
            "comfyui",
            "release",
            ".pt",
            "voice_embedding/NAME.pt under a preset's name, and the count of tekken.json",
            writers.write_release,
            readers.read_comfyui,
            "put {out} into ComfyUI/models/voxtral and choose the voice {name}",
            mismatch="frames are cut, or the node fails",
            presets_only=True,
        ),
        Runtime(
            "loom.cpp",
            "file",
            ".gguf",
            "the tensor 'voice' of a file that was made for its weights",
            loom.write_loom,
            loom.read_loom,
            "loom_cli MODEL.gguf --voice {out} --text \"...\"",
        ),
        Runtime(
            "codes",
            "file",
            ".safetensors",
            "'codes' [T, K], embedded with the release's own table",
            writers.write_codes,
            readers.read_codes,
            "python -c 'from safetensors.torch import load_file; "
            "print(load_file(\"{out}\")[\"codes\"].shape)'",
        ),
    )
}  # fmt: skip


def find_runtime(name: str) -> Runtime:
    """A runtime by its name. Raises UsageError with the nearest name, or all of them."""
    if name in RUNTIMES:
        return RUNTIMES[name]
    near = get_close_matches(name, RUNTIMES, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise UsageError(f"No runtime is called {name!r}{hint}. They are {', '.join(RUNTIMES)}.")
