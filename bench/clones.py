"""What the weight `cloned` costs at the real size: time, multiplications and memory.

    python bench/clones.py --params path/to/params.json [--items 1 2 4] [--device cuda]

Random weights, noise for recordings: a loss of so many clones (`train/cloned.py`), forward and
backward, with the language model in bf16, as `voxclone train encoder` holds it on a GPU.

Shapes: S samples, I items, R speakers.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from train_step import Meter
from tts import random_tts
from voxclone.codec.model import Codec
from voxclone.data.corpus import PackedCorpus
from voxclone.device import pick_device
from voxclone.models.speaker_network import SpeakerNetwork
from voxclone.release.params import parse_params
from voxclone.train.cloned import Cast, CloneListener, CloneSettings, Scene, cloned_loss
from voxclone.train.parts import OF_CLONES, sources_of

TOKENS_A_FRAME = 0.3
"""Of the real tokenizer; the small one here has a token for every byte."""
VOICES = (96, 5)  # width and blocks of the packaged network


def random_scene(settings: CloneSettings, frame_size: int) -> Scene:
    """Recordings of the mean lengths of the settings, for as many items."""
    voice, said = (sum(pair) // 2 for pair in (settings.voice_frames, settings.target_frames))

    def noise(*shape: int) -> torch.Tensor:
        return 0.05 * torch.randn(*shape)

    return Scene(
        noise(settings.items, voice * frame_size),
        noise(settings.strangers, settings.stranger_frames * frame_size),
        [noise(said * frame_size) for _ in range(settings.items)],
        ["a" * round(TOKENS_A_FRAME * said)] * settings.items,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--params", type=Path, required=True, help="of the release")
    parser.add_argument("--items", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processor-time", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    device = pick_device(given.device)
    params = parse_params(json.loads(given.params.read_text()))
    codec = Codec(params.codec)
    codec.quantizer.semantic_codebook.embedding_sum.normal_()
    codec.to(device).decoder.requires_grad_(False)
    voices = SpeakerNetwork(1, *VOICES).to(device).eval().requires_grad_(False)
    meter = Meter(device, torch.bfloat16, given.processor_time)
    with tempfile.TemporaryDirectory() as folder:
        model = random_tts(params, device, torch.bfloat16, Path(folder), codec)
    print(f"held {meter.peak_memory():.1f} GB, {torch.__version__}, {device}")
    cast = Cast(PackedCorpus([], [0], torch.zeros(0, dtype=torch.int16).numpy()), {}, {})
    for items in sorted(given.items):  # a peak only grows
        settings = CloneSettings(items=items)
        listener = CloneListener.frozen(model, voices, cast, settings)
        scene, part = random_scene(settings, codec.frame_size), slice(0, items)

        def step(
            listener: CloneListener = listener, scene: Scene = scene, part: slice = part
        ) -> None:
            with torch.autocast(device.type, torch.bfloat16):
                sources = sources_of(0, 0, OF_CLONES, part)
                loss, _ = cloned_loss(listener, codec, scene, part, sources)
            loss.backward()
            codec.zero_grad(set_to_none=True)

        with FlopCounterMode(display=False) as counter:
            seconds = meter.seconds(step)
        print(
            f"{items} clones: {seconds:.1f} s, {counter.get_total_flops() / 1e12:.2f} TFLOP, "
            f"peak {meter.peak_memory():.1f} GB",
            flush=True,
        )


if __name__ == "__main__":
    main()
