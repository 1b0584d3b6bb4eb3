"""Speed of synthesis: seconds to the first sound, and seconds of computing for a second of speech.

    python bench/tts.py                                              # the mini release
    python bench/tts.py --model path/to/Voxtral-4B-TTS-2603 --device cuda
    python bench/tts.py --model path/to/release --weights int8       # on a CPU
    python bench/tts.py --params path/to/params.json --device cuda   # random weights of that size

A voice of random codes speaks a text of many sentences, to its end or for at most `--seconds`. The
codec's decoding is timed alone, too.

Shapes: S samples, N voice embeddings, D width, K codebooks, T frames.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
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


def time_speech(model: TTS, voice_ND: Tensor, seconds: float) -> dict[str, float]:
    """Seconds to the first chunk and to the last, and seconds of speech in them."""
    text = TEXT * 8
    begun = time.perf_counter()
    first, samples = 0.0, 0
    streams = model.streams()
    streams.add(model.utterance(text, voice_ND, seed=0))
    while len(streams) and samples < seconds * model.codec.sampling_rate:
        for chunk in streams.step():
            first = first or time.perf_counter() - begun
            samples += len(chunk.wave_S)
    speech = samples / model.codec.sampling_rate
    return {"first": first, "seconds": time.perf_counter() - begun, "speech": speech}


def time_decoding(model: TTS, seconds: float) -> float:
    """Seconds to decode so much speech at once."""
    frames = max(1, round(seconds * model.codec.frame_rate))
    shape = (1, model.codec.num_codebooks, frames)
    codes_BKT = torch.zeros(shape, dtype=torch.long, device=model.device)
    begun = time.perf_counter()
    with torch.inference_mode():
        model.codec.decode(codes_BKT).cpu()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--params", type=Path, help="use random weights of this size")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--weights", help="int8 or int4, of a --model on a CPU")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--voice", type=float, default=10.0, help="seconds of the voice")
    parser.add_argument("--seconds", type=float, default=20.0, help="most seconds of speech")
    parser.add_argument("--runs", type=int, default=2, help="report the best of so many")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = pick_device(options.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        if options.params is None:
            weights, release = check_weights(options.weights), Release.open(options.model)
            model = TTS.load(release, dtype=dtype, device=device, weights=weights)
        else:
            params = parse_params(json.loads(options.params.read_text(encoding="utf-8")))
            codec = Codec(params.codec, with_encoder=False).eval()
            codec.quantizer.semantic_codebook.embedding_sum.normal_()
            model = random_tts(params, device, dtype, Path(folder), codec)
    voice_ND = random_voice(model, max(1, round(options.voice * model.codec.frame_rate)))
    runs = [time_speech(model, voice_ND, options.seconds) for _ in range(options.runs)]
    best = min(runs, key=lambda run: run["seconds"] / max(run["speech"], 1e-9))
    decoding = time_decoding(model, best["speech"])
    print(f"{device}, {dtype}, {options.threads} threads, torch {torch.__version__}")
    print(
        f"first sound after {best['first']:.2f} s; {best['speech']:.1f} s of speech in "
        f"{best['seconds']:.1f} s ({best['seconds'] / max(best['speech'], 1e-9):.2f} x real time), "
        f"decoding at once takes {decoding:.1f} s of that"
    )


if __name__ == "__main__":
    main()
