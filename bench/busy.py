"""How long a clone takes alone, and beside processes that keep the cores busy."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import typer

TEXT = "The kids are talking by the door, and the dogs are sitting in the sun."


def clone_seconds(recording: Path, model: str, runs: int) -> float:
    """Seconds of the fastest of some runs of `voxclone clone`, each a process of its own."""
    times = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "voxclone", "clone", str(recording), TEXT]
            options = ["-o", f"{folder}/out.wav", "--model", model, "--seed", "1", "--quiet"]
            begun = time.monotonic()
            subprocess.run([*command, *options], check=True)
            times.append(time.monotonic() - begun)
    return min(times)


def main(recording: Path, model: str = "mini", busy: int = 2, runs: int = 3) -> None:
    alone = clone_seconds(recording, model, runs)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        beside = clone_seconds(recording, model, runs)
    finally:
        for other in others:
            other.kill()
    print(
        f"{alone:.1f} s alone, {beside:.1f} s beside {busy} processes: {beside / alone:.1f} times"
    )


if __name__ == "__main__":
    typer.run(main)
