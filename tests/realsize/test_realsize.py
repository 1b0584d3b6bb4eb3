"""A release with the real hyper-parameters and random weights: nothing is new on the day the real
weights are there.

    make test-realsize

writes about 8 GB to a temporary directory, then runs `inspect`, the codec both ways and 20 frames
of speech on the CPU, and prints seconds and peak memory of each. Every step runs in a
process of its own, whose peak of resident memory, pages of mapped files included, must stay below
12 GiB. (Limits on address space or data would count the mapped files whole, once for each opening.)
"""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from recipes.mini_release.layout import small_tekken
from tests.helpers.tiny_release import preset_embedding
from tests.release.real_params import REAL
from voxclone.release.params import parse_params
from voxclone.release.presets import write_preset
from voxclone.release.safetensors_writer import Entry, write_safetensors
from voxclone.release.tensors import encoder_tensors, expected_tensors

pytestmark = [pytest.mark.realsize, pytest.mark.timeout(3600)]

LIMIT = 12 * 2**30
PACKED_LIMIT = 5 * 2**30
FRAMES = 20


def random_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Small random numbers that keep activations finite; scales and usages as they must be."""
    generator = torch.Generator().manual_seed(sum(name.encode()))
    if name.endswith(("norm.weight", "original0", "cluster_usage")):
        return torch.ones(shape, dtype=torch.bfloat16)
    if name.endswith(("attention_scale", "ffn_scale")):
        return torch.full(shape, 0.01, dtype=torch.bfloat16)
    deviation = shape[-1] ** -0.5 if len(shape) > 1 else 1.0
    flat = torch.empty(shape, dtype=torch.bfloat16)
    for row in flat.view(-1, shape[-1]).split(4096):  # no second copy of a large table in fp32
        row.copy_(torch.randn(row.shape, generator=generator) * deviation)
    return flat


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "release"
    (folder / "voice_embedding").mkdir(parents=True)
    params = parse_params(REAL)
    (folder / "params.json").write_text(json.dumps(REAL))
    rows = 170
    special = 1000
    tekken = small_tekken({name: rows for name in params.voices}, special_tokens=special)
    (folder / "tekken.json").write_text(json.dumps(tekken))
    shapes = expected_tensors(params)
    write_safetensors(
        folder / "consolidated.safetensors",
        [
            Entry(name, torch.bfloat16, shape, lambda n=name, s=shape: random_tensor(n, s))
            for name, shape in shapes.items()
        ],
    )
    write_safetensors(
        folder.parent / "encoder.safetensors",
        [
            Entry(name, torch.bfloat16, shape, lambda n=name, s=shape: random_tensor(n, s))
            for name, shape in encoder_tensors(params).items()
        ],
    )
    for name in params.voices:
        write_preset(
            folder / "voice_embedding" / f"{name}.pt", preset_embedding(name, rows, params)
        )
    return folder


def run(script: str, *arguments: str) -> dict[str, float]:
    """Run a script in a process of its own; it prints one JSON object on its last line."""
    prelude = """
        import json, sys, time
        begun = time.perf_counter()
        def report(**metrics):
            metrics["seconds"] = round(time.perf_counter() - begun, 2)
            # Not ru_maxrss: it begins with the peak of the process that started this one.
            status = dict(line.split(":") for line in open("/proc/self/status"))
            metrics["peak_mib"] = round(int(status["VmHWM"].split()[0]) / 1024)
            print(json.dumps(metrics))
    """
    code = textwrap.dedent(prelude) + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    metrics: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{metrics}")
    return metrics


def test_inspect_takes_under_a_second(release: Path) -> None:
    metrics = run(
        """
        from voxclone.release.release import Release
        from voxclone.release.inspection import inspect_release
        opened = time.perf_counter()
        found = inspect_release(Release.open(sys.argv[1]))
        report(
            inspecting=round(time.perf_counter() - opened, 3),
            tensors=sum(part.tensors for part in found.parts.values()),
            values=sum(part.values for part in found.parts.values()),
            problems=len(found.problems),
        )
        """,
        str(release),
    )
    assert metrics["tensors"] == 386 and metrics["values"] == 4_002_353_392
    assert metrics["problems"] == 0
    assert metrics["seconds"] < 1.0 and metrics["peak_mib"] < 300


def test_codec_runs_both_ways_in_bf16(release: Path) -> None:
    metrics = run(
        """
        from pathlib import Path
        import torch
        from voxclone.release.release import Release, load_codec
        release = Release.open(sys.argv[1])
        codec = load_codec(release, Path(sys.argv[2])).to(torch.bfloat16)
        loaded = time.perf_counter()
        wave = torch.randn(1, 240_000, generator=torch.Generator().manual_seed(0)) * 0.1
        with torch.inference_mode():
            codes = codec.encode(wave, dtype=torch.bfloat16)
            encoded = time.perf_counter()
            back = codec.decode(codes)
        decoded = time.perf_counter()
        assert codes.shape == (1, 37, 125) and back.shape == (1, 240_000)
        assert bool(torch.isfinite(back).all())
        report(
            loading=round(loaded - begun, 2),
            encode_per_second=round((encoded - loaded) / 10, 3),
            decode_per_second=round((decoded - encoded) / 10, 3),
        )
        """,
        str(release),
        str(release.parent / "encoder.safetensors"),
    )
    assert metrics["peak_mib"] * 2**20 < LIMIT


@pytest.mark.parametrize("weights", [None, "int8", "int4"])
def test_speaks_within_the_limit(release: Path, weights: str | None) -> None:
    """In bf16, and in fp32 with packed matrices."""
    metrics = run(
        f"""
        import torch
        from voxclone.release.release import Release, load_preset
        from tests.helpers.frames import frames
        from voxclone.tts.batch import Sampling
        from voxclone.tts.tts import TTS
        release = Release.open(sys.argv[1])
        weights = {weights!r}
        dtype = torch.bfloat16 if weights is None else torch.float32
        speaker = TTS.load(release, dtype=dtype, weights=weights)
        loaded = time.perf_counter()
        voice = load_preset(release, "neutral_male")
        ids = speaker.prompts.ids("Paris is a beautiful city!", len(voice))
        prompt = speaker.backbone.embed_prompt(ids, voice)[0]
        made = []
        steps = frames(speaker.backbone, speaker.head, [prompt], [torch.Generator()], Sampling())
        for _, frame in zip(range({FRAMES}), steps):
            if not made:
                first = time.perf_counter()
            made.append(frame.shifted_BK[0] - 2)
        spoken = time.perf_counter()
        codes = torch.stack(made, dim=-1).clamp(min=0)
        with torch.inference_mode():
            wave = speaker.codec.decode(codes[None])
        assert wave.shape == (1, {FRAMES} * 1920) and bool(torch.isfinite(wave).all())
        report(
            loading=round(loaded - begun, 1),
            prompt=round(first - loaded, 2),
            per_frame=round((spoken - first) / ({FRAMES} - 1), 3),
            frames=len(made),
        )
        """,
        str(release),
    )
    assert metrics["frames"] == FRAMES
    assert metrics["peak_mib"] * 2**20 < (LIMIT if weights is None else PACKED_LIMIT)
