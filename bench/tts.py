"""Speed of synthesis: seconds to the first sound, and seconds of computing for a second of speech.

    export PYTHONPATH=.              # of the project
    python bench/tts.py                                              # the mini release
    python bench/tts.py --model path/to/Voxtral-4B-TTS-2603 --device cuda
    python bench/tts.py --model path/to/release --weights int8       # on a CPU
    python bench/tts.py --params path/to/params.json --device cuda   # random weights of that size

A voice of `--voice` seconds of random codes speaks a text of many sentences, to its end or for at
most `--seconds`, `--batch` times at once; the best of `--runs`. Decoding is timed alone, too.

Shapes: S samples, N voice embeddings, D width, K codebooks, T frames.
"""

import json
import tempfile
import time
from pathlib import Path

import torch
import typer
from torch import Tensor, nn

from recipes.mini_release.layout import small_tekken
from voxclone.codec.model import Codec
from voxclone.device import pick_device
from voxclone.release.params import Params, parse_params
from voxclone.release.release import Release
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone
from voxclone.tts.limits import check_weights
from voxclone.tts.prompt import PromptMaker
from voxclone.tts.tts import TTS
from voxclone.voice.embedding import embed_codes

TEXT = "The kids are talking by the door, and the dogs are sitting in the sun. "


def filled(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A module from the meta device, with small random weights."""
    module.to(dtype).to_empty(device=device)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            bound = weight.shape[-1] ** -0.5
            weight.fill_(1.0) if name.endswith("norm.weight") else weight.uniform_(-bound, bound)
    return module.eval().requires_grad_(False)


def random_tts(
    params: Params, device: torch.device, dtype: torch.dtype, folder: Path, codec: Codec
) -> TTS:
    """A language model and a head of these sizes, with random weights."""
    with torch.device("meta"):
        backbone, head = Backbone(params), AcousticHead(params)
    filled(backbone, device, dtype)
    filled(head, device, dtype)
    backbone.restore_buffers(device)
    path = folder / "tekken.json"
    path.write_text(json.dumps(small_tekken({"voice": 100}, special_tokens=1000)))
    return TTS(params, backbone, head, codec.to(device), PromptMaker(path))


def random_voice(model: TTS, frames: int) -> Tensor:
    """The voice [N, D] of random codes."""
    audio = model.params.audio
    sizes = [audio.semantic_codebook_size] + [audio.acoustic_codebook_size] * (
        model.codec.num_codebooks - 1
    )
    generator = torch.Generator().manual_seed(0)
    codes_KT = torch.stack([torch.randint(n, (frames,), generator=generator) for n in sizes])
    table_VD = model.backbone.audio_table.weight
    return embed_codes(codes_KT.to(table_VD.device), table_VD, model.backbone.offsets_K.tolist())


def time_speech(model: TTS, voice_ND: Tensor, seconds: float, batch: int) -> dict[str, float]:
    """Seconds to the first chunk and to the last, and seconds of speech in them, of so many
    utterances at once."""
    begun = time.perf_counter()
    first, samples = 0.0, 0
    streams = model.streams()
    for seed in range(batch):
        streams.add(model.utterance(TEXT * 8, voice_ND, seed=seed))
    while len(streams) and samples < batch * seconds * model.codec.sampling_rate:
        for chunk in streams.step():
            first = first or time.perf_counter() - begun
            samples += len(chunk.wave_S)
    speech = samples / model.codec.sampling_rate
    return {"first_s": first, "seconds": time.perf_counter() - begun, "speech_s": speech}


def time_decoding(model: TTS, seconds: float) -> float:
    """Seconds to decode so much speech at once."""
    frames = max(1, round(seconds * model.codec.frame_rate))
    shape = (1, model.codec.num_codebooks, frames)
    codes_BKT = torch.zeros(shape, dtype=torch.long, device=model.device)
    begun = time.perf_counter()
    with torch.inference_mode():
        model.codec.decode(codes_BKT).cpu()
    return time.perf_counter() - begun


def main(
    model: str = "mini",
    params: Path | None = None,
    device: str = "auto",
    weights: str | None = None,
    threads: int = torch.get_num_threads(),
    voice: float = 10.0,
    seconds: float = 20.0,
    batch: int = 1,
    runs: int = 2,
) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    found = pick_device(device)
    dtype = torch.bfloat16 if found.type == "cuda" else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        if params is None:
            kind, release = check_weights(weights), Release.open(model)
            tts = TTS.load(release, dtype=dtype, device=found, weights=kind)
        else:
            sizes = parse_params(json.loads(params.read_text(encoding="utf-8")))
            codec = Codec(sizes.codec, with_encoder=False).eval()
            codec.quantizer.semantic_codebook.embedding_sum.normal_()
            tts = random_tts(sizes, found, dtype, Path(folder), codec)
    voice_ND = random_voice(tts, max(1, round(voice * tts.codec.frame_rate)))
    times = [time_speech(tts, voice_ND, seconds, batch) for _ in range(runs)]
    best = min(times, key=lambda each: each["seconds"] / max(each["speech_s"], 1e-9))
    decoding = time_decoding(tts, best["speech_s"])
    case = {"device": str(found), "dtype": str(dtype), "weights": weights, "threads": threads}
    real_time = best["seconds"] / max(best["speech_s"], 1e-9)
    row = case | {"batch": batch} | best | {"real_time": real_time, "decoding_s": decoding}
    print(json.dumps(row))


if __name__ == "__main__":
    typer.run(main)
