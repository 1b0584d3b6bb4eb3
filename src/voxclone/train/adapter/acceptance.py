"""The end of the training of an adapter: its gate on unseen speakers, and what is written."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from voxclone.errors import EXIT_OK, EXIT_QUALITY, QualityError
from voxclone.io import atomic_file
from voxclone.release.safetensors import load_tensors
from voxclone.train import distributed
from voxclone.train.adapter.gate import Gate, Verdict
from voxclone.train.loop import Outcome
from voxclone.tts.adapter import Adapter
from voxclone.tts.adapter_file import AdapterCard, write_adapter

ADAPTER_FOLDER, BEST_FILE, GATE_FILE = "adapter", "best.safetensors", "gate.json"


@contextmanager
def best_adapter(adapter: Adapter, path: Path) -> Iterator[None]:
    """Within, the adapter is the best one of the run."""
    kept = adapter.tensors()
    adapter.load(load_tensors(path))
    try:
        yield
    finally:
        adapter.load(kept)


def accept(
    gate: Gate,
    adapter: Adapter,
    outcome: Outcome,
    best_step: int,
    out: Path,
    console: Console,
    card: Callable[[Verdict], AdapterCard],
    *,
    force: bool,
) -> int:
    """Measure the best adapter of the run on unseen speakers, and write it with its `card` if it
    passes, or if forced; returns the exit code. Raises QualityError otherwise, with what was lost.
    """
    with best_adapter(adapter, out / BEST_FILE):
        verdict = gate.verdict("test")
        if not distributed.is_rank0():
            return EXIT_OK if verdict.passed or force else EXIT_QUALITY
        report = {"schema": "voxclone.gate/1", "step": best_step} | verdict.to_json()
        with atomic_file(out / GATE_FILE) as file:
            file.write(json.dumps(report, indent=1).encode())
        if verdict.passed or force:
            write_adapter(out / ADAPTER_FOLDER, adapter, card(verdict))
    for name, row in verdict.rows.items():
        console.print(f"  {name}: {row['base']:.3f} -> {row['adapted']:.3f}")
    if not verdict.passed:
        lost = " ".join(verdict.lost)
        if not force:
            raise QualityError(
                f"The adapter of step {best_step} fails its gate and is not written: {lost} "
                f"Use the encoder without an adapter; `--resume --force` writes it, "
                f"marked as failed. The report is {out / GATE_FILE}."
            )
        console.print(f"Failed its gate, and written as such: {lost}", style="yellow")
    path = out / ADAPTER_FOLDER
    console.print(f"Wrote {path} (step {best_step} of {outcome.step}).")
    console.print(f'Use it: voxclone clone REF "text" -o out.wav --adapter {path}')
    return EXIT_OK
