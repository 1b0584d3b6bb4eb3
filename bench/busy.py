"""How long a clone takes alone, and beside processes that keep the cores busy.

python bench/busy.py RECORDING [--model mini] [--busy 2]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUSY = "while True: pass"
TEXT = "The kids are talking by the door, and the dogs are sitting in the sun."


def clone_seconds(recording: Path, model: str, runs: int) -> float:
    """Seconds of the fastest of some runs of `voxclone clone`, each a process of its own."""
    best = float("inf")
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            out = str(Path(folder) / "out.wav")
            command = [sys.executable, "-m", "voxclone", "clone", str(recording), TEXT, "-o", out]
            start = time.monotonic()
            subprocess.run([*command, "--model", model, "--seed", "1", "--quiet"], check=True)
            best = min(best, time.monotonic() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--busy", type=int, default=2, help="processes beside the clone")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    alone = clone_seconds(args.recording, args.model, args.runs)
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(args.busy)]
    try:
        beside = clone_seconds(args.recording, args.model, args.runs)
    finally:
        for other in others:
            other.kill()
    print(json.dumps({"alone_s": alone, "busy_s": beside, "ratio": beside / alone}))


if __name__ == "__main__":
    main()
