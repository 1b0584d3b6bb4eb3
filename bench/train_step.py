"""Speed and memory of a step of encoder training at the real size, with random weights.

Each case runs in a process of its own, so that its peak memory is its own. Every timed step stands
between two runs of a large matrix product in the dtype of the codec's work, whose rate is the
arithmetic peak of that moment; the step's multiplications are counted, and the ratio is its share
of the peak.

    python bench/train_step.py                             # ours, and the community's
    python bench/train_step.py --case ours --profile       # the costliest operations
    python bench/train_step.py --seconds 4 --batch 8 --device cuda

On a core that is shared with others, `--processor-time` counts only what the step itself computes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from voxclone.codec.config import CodecConfig
from voxclone.codec.model import Codec
from voxclone.config import load_settings
from voxclone.data.corpus import PackedCorpus
from voxclone.data.labels import TOP_K, Label
from voxclone.data.manifest import Clip
from voxclone.device import pick_device
from voxclone.models.whisper import AsrTargets, TargetStore
from voxclone.spec import FRAME_RATE, SAMPLING_RATE
from voxclone.train.encoder import EncoderTraining, build
from voxclone.train.encoder_config import EncoderConfig, packaged_config
from voxclone.train.material import Material, open_teacher

CONFIGS = packaged_config("mini").parent
CASES = {"ours": "voxtral_4b", "community": "community"}
MATRIX = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a crop")
    parser.add_argument("--batch", type=int, default=1, help="crops of real speech in a step")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=1, help="timed steps of each kind")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--case", choices=list(CASES), action="append")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        print(json.dumps(run_case(options.child, options)))
        return
    print(
        f"{options.batch} crops of {options.seconds} s, {options.threads} threads, "
        f"torch {torch.__version__}"
    )
    print(f"{'':12}{'s a step':>9}{'audio s/s':>11}{'TFLOP':>8}{'peak share':>12}{'peak GB':>9}")
    rows = []
    for case in options.case or CASES:
        row = _in_process(case)
        rows.append(row)
        print(
            f"{case:12}{row['seconds']:9.2f}{row['audio_per_second']:11.3f}{row['tflop']:8.2f}"
            f"{row['share']:12.2f}{row['peak_gb']:9.2f}",
            flush=True,
        )
        if "profile" in row:
            print(row.pop("profile"))
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


class Meter:
    """Times work on a device, and the device itself."""

    def __init__(self, device: torch.device, dtype: torch.dtype, processor_time: bool) -> None:
        self.device, self.dtype = device, dtype
        self.clock = time.process_time if processor_time else time.perf_counter

    def seconds(self, work: Callable[[], object]) -> float:
        self._wait()
        begun = self.clock()
        work()
        self._wait()
        return self.clock() - begun

    def peak_flops(self) -> float:
        """FLOP a second of a large matrix product, now."""
        size = 4 * MATRIX if self.device.type == "cuda" else MATRIX
        left = torch.ones(size, size, dtype=self.dtype, device=self.device)
        left @ left
        return 2 * size**3 / min(self.seconds(lambda: left @ left) for _ in range(3))

    def peak_memory(self) -> float:
        """GB: of the GPU's memory, or resident (not ru_maxrss, which begins with the parent's)."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        lines = Path("/proc/self/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        return int(status["VmHWM"].split()[0]) * 1024 / 1e9

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def run_case(case: str, options: argparse.Namespace) -> dict[str, object]:
    """Metrics of one case; called in its own process."""
    device, config = pick_device(options.device), CONFIGS / f"{CASES[case]}.yaml"
    with tempfile.TemporaryDirectory() as folder:
        training = build_training(config, device, options.seconds, options.batch, Path(folder))
        dtype = torch.bfloat16 if training.config.run.autocast else torch.float32
        meter = Meter(device, dtype, options.processor_time)
        metrics = measure(training.train_step, meter, options)
        row: dict[str, object] = {"case": case, **metrics}
        if options.profile:
            row["profile"] = _profile(training.train_step, device)
        return row


def measure(
    work: Callable[[int], object], meter: Meter, options: argparse.Namespace
) -> dict[str, float]:
    """Metrics of the first step, which was run once before."""
    with FlopCounterMode(display=False) as counter:
        work(0)
    counted = counter.get_total_flops()
    taken, parts = [], []
    for _ in range(options.steps):
        before = meter.peak_flops()
        taken.append(meter.seconds(lambda: work(0)))
        peak = (before + meter.peak_flops()) / 2
        parts.append(counted / taken[-1] / peak)
    return {
        "seconds": min(taken),
        "audio_per_second": options.seconds * options.batch / min(taken),
        "tflop": counted / 1e12,
        "share": max(parts),
        "peak_gb": meter.peak_memory(),
    }


def _profile(work: Callable[[int], object], device: torch.device) -> str:
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as trace:
        work(0)
    key = f"self_{device.type}_time_total"
    return trace.key_averages().table(sort_by=key, row_limit=16, max_name_column_width=44)


def build_training(
    path: Path,
    device: torch.device,
    seconds: float,
    batch: int,
    folder: Path,
    overrides: Sequence[str] = (),
) -> EncoderTraining:
    """A recipe's training at the real size: random weights, noise for speech, random codes, targets
    and labels. Other batches keep their proportion to that of real speech. Without the speaker
    loss, which needs a language model."""
    given = load_settings(EncoderConfig, path)
    codec = Codec(CodecConfig(layer_scale_init=0.01), with_encoder=False)
    frames = round(seconds * codec.frame_rate)

    def share(count: int) -> int:
        return max(1, round(count * batch / given.real_batch))

    own = [
        f"frames={frames}", f"real_batch={batch}", "real_from=0",
        f"pair_batch={share(given.pair_batch)}",
        f"pseudo_labels.batch={share(given.pseudo_labels.batch)}", "discriminators.start=0",
        f"pseudo_labels.label_steps=[{given.run.steps - 1}]", "weights.speaker_contrastive=0",
    ]  # fmt: skip
    config = load_settings(EncoderConfig, path, [*own, *overrides])
    torch.manual_seed(0)
    book = codec.quantizer.semantic_codebook
    book.embedding_sum.normal_().mul_(13.6)
    size, length = codec.frame_size, 2 * frames
    clips = [
        Clip(f"c{i}", Path("none"), f"s{i % 4}", length * size / SAMPLING_RATE) for i in range(8)
    ]
    noise = (1500 * torch.randn(len(clips) * length * size)).to(torch.int16).numpy()
    corpus = PackedCorpus(clips, [i * length * size for i in range(len(clips) + 1)], noise)
    sizes = [len(book.cluster_usage)] + [codec.quantizer.levels] * (codec.num_codebooks - 1)
    genuine = [torch.stack([torch.randint(n, (length,)) for n in sizes]) for _ in range(8)]
    teacher: Any = None
    if config.teacher is not None and "whisper" in config.teacher:
        teacher = TargetStore(_RandomTeacher(), folder)  # type: ignore[arg-type]
    elif config.teacher is not None:
        teacher = open_teacher(config.teacher, device, folder)
    code_TJ = torch.randint(sizes[0], (length, TOP_K))
    drawn = Label(code_TJ, torch.full((length, TOP_K), 1 / TOP_K))
    labels = {index: drawn for index in range(len(clips))}
    model: Any = object()  # the labels are there already, so it is not asked
    material = Material(
        codec, corpus.subset(lambda clip: True), genuine, teacher=teacher, language_model=model,
        labels=folder, bridge_labels=labels if config.weights.bridge else {},
    )  # fmt: skip
    training = build(config, material, device)
    if training.objective.labels is not None:
        training.objective.labels.hold(labels)
    return training


class _RandomTeacher:
    """Targets of the size of whisper-base's; made once, read from the store in every step."""

    name, heads, width = "random", (), 512

    def targets(self, wave_S: torch.Tensor, frames: int, *text: str | None) -> object:
        tokens = 4 + round(3.3 * frames / FRAME_RATE)
        share_LT = torch.rand(tokens, frames)
        return AsrTargets(torch.randn(tokens, self.width), share_LT / share_LT.sum(1, True))


def _in_process(case: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--child", case],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{case} failed:\n{done.stderr}")
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


if __name__ == "__main__":
    main()
