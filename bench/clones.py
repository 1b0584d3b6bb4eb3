"""What the speaker loss through the language model costs at the real size.

    python bench/clones.py --params path/to/params.json [--items 1 2 4] [--device cuda]

Time, multiplications and memory of a loss of so many clones (`train/speaker_loss.py`), forward and
backward, with random weights, noise for recordings, and the language model in bf16, as
`voxclone train encoder` holds it on a GPU.

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
from voxclone.data.speakers import Sizes, SpeakerBatch, SpeakerPool
from voxclone.device import autocast, pick_device
from voxclone.models.speaker_network import SpeakerNetwork
from voxclone.release.params import parse_params
from voxclone.train.batch import OF_SPEAKERS, item_generators
from voxclone.train.speaker_loss import SpeakerLoss, speaker_loss

TOKENS_A_FRAME = 0.3
"""Of the real tokenizer; the small one here has a token for every byte."""
VOICES = (96, 5)  # width and blocks of the packaged network


def random_batch(sizes: Sizes, frame_size: int) -> SpeakerBatch:
    """Recordings of the mean lengths, for as many items."""
    voice, target = (sum(pair) // 2 for pair in (sizes.voice_frames, sizes.target_frames))

    def noise(*shape: int) -> torch.Tensor:
        return 0.05 * torch.randn(*shape)

    return SpeakerBatch(
        noise(sizes.items, voice * frame_size),
        noise(sizes.negatives, sizes.negative_frames * frame_size),
        [noise(target * frame_size) for _ in range(sizes.items)],
        ["a" * round(TOKENS_A_FRAME * target)] * sizes.items,
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
    pool = SpeakerPool(PackedCorpus([], [0], torch.zeros(0, dtype=torch.int16).numpy()), {}, {})
    for items in sorted(given.items):  # a peak only grows
        sizes = Sizes(items=items)
        frozen = SpeakerLoss.frozen(model, voices, pool, sizes)
        batch, part = random_batch(sizes, codec.frame_size), slice(0, items)

        def step(
            frozen: SpeakerLoss = frozen, batch: SpeakerBatch = batch, part: slice = part
        ) -> None:
            with autocast(device, enabled=True):
                sources = item_generators(0, 0, OF_SPEAKERS, part)
                loss, _ = speaker_loss(frozen, codec, batch, part, sources)
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
