"""Seconds of a step of refinement at the real size, with random weights.

    python bench/refine_realsize.py --seconds 8 --steps 3 [--device cuda] [--threads 1]

The codec alone: the model's readings (two forward passes every 25 steps) and its flow loss are
not in it. Seconds are those of this process on a CPU (one thread unless said otherwise), else of
the clock.
"""

import argparse
import itertools
import resource
import sys
import time

import torch

from voxclone.cloning.refine.free import from_nothing
from voxclone.cloning.refine.reading import Halves
from voxclone.cloning.refine.run import Job, refine_codes
from voxclone.cloning.refine.settings import RefineSettings
from voxclone.codec.config import CodecConfig
from voxclone.codec.model import Codec
from voxclone.models.speaker_encoder import Ge2eEmbedder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    generator = torch.Generator().manual_seed(0)
    codec = Codec(CodecConfig(), with_encoder=False).requires_grad_(False)
    codec.quantizer.semantic_codebook.embedding_sum.normal_(generator=generator)
    codec = codec.to(given.device)
    frames = round(given.seconds * codec.frame_rate)
    wave_S = 0.1 * torch.randn(frames * codec.frame_size, generator=generator)
    settings = RefineSettings.model_validate({
        "judge": "likeness",
        "steps": given.steps,
        "judge_every": given.steps,
        "weights": {"likely_levels": 0.0, "likely_semantic": 0.0},
    })  # fmt: skip
    clock = time.process_time if given.device == "cpu" else time.perf_counter
    times = [clock()]

    def note(step: int, told: dict[str, float]) -> None:
        times.append(clock())

    job = Job(
        codec, wave_S.to(given.device), from_nothing(codec, frames, 0),
        Halves(frames // 2, frames, ("", "")), settings,
        embedder=Ge2eEmbedder.load(given.device),
    )  # fmt: skip
    refine_codes(job, progress=note)
    steps = [after - before for before, after in itertools.pairwise(times[1:])]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = peak / (1024 if sys.platform == "linux" else 1024**2)
    print(f"{given.seconds:g} s of speech, {given.device}, {given.threads} threads:")
    print(f"first step and judgement {times[1] - times[0]:.2f} s, then each {min(steps):.2f} s")
    print(f"200 steps {200 * min(steps):.0f} s; peak {peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
