"""Speed and memory of the codec at the real size, with random weights.

Each case runs in a process of its own, so that its peak memory is its own. Every timed run stands
between two large fp32 matrix products. Their rate gives the arithmetic limit of that moment (13.4
GFLOP for a second of audio, one way). Compare the ratio of the two: shared machines drift in speed.

    python bench/codec.py                    # 3, 10, 60 and 300 s, encode and decode, and dense
    python bench/codec.py --seconds 10 60 --runs 5 --json out.json
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor

GFLOP_PER_SECOND = 13.4
DENSE_LIMIT = 60.0
"""Dense attention at 100 Hz needs memory with the square of the length."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, nargs="+", default=[3, 10, 60, 300])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.case:
        direction, attention, seconds = options.case
        print(json.dumps(run_case(direction, attention, float(seconds), options.runs)))
        return
    rows = []
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads, torch "
          f"{torch.__version__}, fp32, {GFLOP_PER_SECOND} GFLOP per second of audio")  # fmt: skip
    print(
        f"{'':7} {'audio':>6} {'attention':>9} {'s per s':>8} {'limit':>7} {'ratio':>6} "
        f"{'peak MB':>8}"
    )
    for seconds in options.seconds:
        for direction in ("encode", "decode"):
            for attention in ("blocks", "dense"):
                if attention == "dense" and seconds > DENSE_LIMIT:
                    continue
                row = _in_process(direction, attention, seconds, options)
                rows.append(row)
                print(
                    f"{direction:7} {seconds:5.0f}s {attention:>9} {row['per_second']:8.4f} "
                    f"{row['limit']:7.4f} {row['ratio']:6.2f} {row['peak_mb']:8.0f}",
                    flush=True,
                )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


def run_case(direction: str, attention: str, seconds: float, runs: int) -> dict[str, object]:
    """Medians of one case; runs in its own process."""
    import voxclone.codec.layers as layers
    from voxclone.codec.config import CodecConfig
    from voxclone.codec.model import PIECE_FRAMES, Codec

    torch.set_grad_enabled(False)
    config = CodecConfig()
    if attention == "dense":
        layers.window_attention = dense_attention
    generator = torch.Generator().manual_seed(0)
    codec = Codec(config)
    codec.quantizer.semantic_codebook.embedding_sum.normal_(generator=generator)
    piece = 10**6 if attention == "dense" else PIECE_FRAMES
    if direction == "encode":
        wave = torch.randn(1, round(seconds * config.sampling_rate), generator=generator) * 0.1
        codec.decoder = torch.nn.Identity()

        def work() -> Tensor:
            return codec.encode(wave, piece=piece)
    else:
        frames = round(seconds * config.frame_rate)
        codes = torch.randint(0, 21, (1, config.num_codebooks, frames), generator=generator)
        codec.encoder = None

        def work() -> Tensor:
            return codec.decode(codes, piece=piece)

    if seconds <= 10:
        work()
    ratios, times, limits = [], [], []
    for _ in range(runs):
        before = matrix_rate()
        begun = time.perf_counter()
        work()
        took = (time.perf_counter() - begun) / seconds
        limit = GFLOP_PER_SECOND / ((before + matrix_rate()) / 2)
        ratios.append(took / limit)
        times.append(took)
        limits.append(limit)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "direction": direction,
        "attention": attention,
        "seconds": seconds,
        "per_second": statistics.median(times),
        "limit": statistics.median(limits),
        "ratio": statistics.median(ratios),
        "peak_mb": peak / (1024 if sys.platform == "linux" else 1024**2),
    }


def matrix_rate(size: int = 3072) -> float:
    """GFLOP/s of a large fp32 matrix product on these cores, now."""
    left, right = torch.ones(size, size), torch.ones(size, size)
    left @ right
    begun = time.perf_counter()
    for _ in range(3):
        left @ right
    return 3 * 2 * size**3 / (time.perf_counter() - begun) / 1e9


def dense_attention(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, window: int) -> Tensor:
    """The whole score matrix at once, as in vLLM-Omni's native path."""
    length = q.shape[1]
    position = torch.arange(length)
    distance = position[None, :] - position[:, None]
    outside = (distance > 0) | (distance < -window)
    bias = (slopes[:, None, None] * distance).masked_fill(outside, -torch.inf)
    heads = [x.transpose(1, 2) for x in (q, k, v)]
    scores = heads[0] @ heads[1].transpose(-1, -2) * q.shape[-1] ** -0.5 + bias
    return (F.softmax(scores, dim=-1) @ heads[2]).transpose(1, 2)


def _in_process(
    direction: str, attention: str, seconds: float, options: argparse.Namespace
) -> dict[str, float]:
    command = [sys.executable, __file__, "--runs", str(options.runs)]
    command += ["--threads", str(options.threads)]
    command += ["--case", direction, attention, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{direction} {attention} {seconds} s failed:\n{done.stderr}")
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


if __name__ == "__main__":
    main()
