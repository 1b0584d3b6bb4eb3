"""What only a GPU can show: memory of training at the real size, and the line on it.

    make test-gpu

That a training and generation give the CPU's results on a GPU is in `tests/train/test_devices.py`
(its tests of `cuda` run with these). Weights at the real size are random.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from tests.release.real_params import REAL
from voxclone.release.encoder_file import open_codec
from voxclone.release.params import parse_params
from voxclone.release.release import Release
from voxclone.release.tensors import expected_tensors

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
LIMIT_GB = 24.0


def ran(*command: object) -> subprocess.CompletedProcess[str]:
    given = [sys.executable, *map(str, command)]
    return subprocess.run(given, capture_output=True, text=True, check=False, cwd=ROOT)


def run(*command: object) -> None:
    """A command of `voxclone`, on the GPU."""
    done = ran("-m", "voxclone", *command, "--device", "cuda")
    assert done.returncode == 0, done.stderr


def measured(case: str, batch: int, folder: Path) -> dict[str, Any] | None:
    """Metrics of a step of so many crops of 4 s; None where the card is too small for it."""
    kept = folder / f"{case}-{batch}.json"
    done = ran(
        "bench/train_step.py", "--device", "cuda", "--case", case, "--seconds", 4,
        "--batch", batch, "--steps", 5, "--json", kept,
    )  # fmt: skip
    if done.returncode and "out of memory" in done.stderr:
        return None
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(kept.read_text())
    print(f"\n{case}, {4 * batch} s: {row}")
    return dict(row)


def language_model_gb() -> float:
    """The release but for its codec, in bf16: it lies beside a training that it teaches."""
    tensors = expected_tensors(parse_params(REAL))
    shapes = (shape for name, shape in tensors.items() if not name.startswith("audio_tokenizer."))
    return sum(2 * torch.Size(shape).numel() for shape in shapes) / 1e9


def test_a_step_of_32_s_leaves_room_on_a_card_of_24_gb(tmp_path: Path) -> None:
    row = measured("ours", 8, tmp_path)
    assert row is not None
    assert row["peak_gb"] + language_model_gb() < LIMIT_GB


def test_the_codec_finds_the_same_codes(tmp_path: Path) -> None:
    codec = open_codec(Release.open("mini"), None)
    samples, _ = soundfile.read(ROOT / "examples" / "reference.flac", dtype="float32")
    wave_BS = torch.from_numpy(samples)[None]
    here_BKT = codec.encode(wave_BS)
    here_BS = codec.decode(here_BKT)
    codec.to("cuda")
    there_BKT = codec.encode(wave_BS.cuda()).cpu()
    assert (there_BKT == here_BKT).double().mean() > 0.99
    there_BS = codec.decode(here_BKT.cuda()).cpu()
    assert (there_BS - here_BS).norm() < 1e-2 * here_BS.norm()


def test_a_voice_is_cloned_refined_and_decoded(tmp_path: Path) -> None:
    consent = (
        "--consent",
        "public-domain",
        "--statement",
        "The recording is in the public domain.",
    )
    voice, reference = tmp_path / "voice.safetensors", "examples/reference.flac"
    run("refine", reference, "-o", voice, "--steps", 10, *consent)
    for start in (("clone", reference), ("speak", "--voice", voice)):
        spoken = tmp_path / f"{start[0]}.wav"
        run(*start, "The kids are talking by the door.", "-o", spoken, "--seed", 1)
        assert 1 < soundfile.info(spoken).duration < 12
