"""Small corpora of synthetic speech, and `voxclone data` on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from typer.testing import CliRunner

from tests.helpers.signals import speech
from voxclone.cli.app import app
from voxclone.errors import VoxcloneError


def voice(seed: int = 0, rate: int = 24000, seconds: float = 1.5) -> np.ndarray:
    """Two phrases [S] between pauses, of `seconds` together."""
    wave = speech([seconds * 0.6, seconds * 0.4], [0.6, 0.25, 0.6], rate)
    return wave + 1e-4 * np.random.default_rng(seed).standard_normal(len(wave))


def put(path: Path, wave: np.ndarray, rate: int = 24000) -> Path:
    """Write a sound file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path


def run(*arguments: object) -> tuple[int, str]:
    """`voxclone data ARGUMENTS`: exit code, and the output or the error in one line."""
    done = CliRunner().invoke(app, ["data", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        assert isinstance(done.exception, VoxcloneError), done.exception
        return done.exception.exit_code, str(done.exception)
    return done.exit_code, " ".join(done.output.split())


def rows_in(out: Path) -> list[dict[str, Any]]:
    """The manifest that `data prepare` wrote."""
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
