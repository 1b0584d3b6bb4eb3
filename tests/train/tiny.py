"""Sizes and loops of the smallest trainings."""

from rich.console import Console

from voxclone.codec.config import CodecConfig
from voxclone.train.run import OptimiserSettings, Task

QUIET = Console(quiet=True)
FAST = OptimiserSettings(lr=3e-3, warmup_steps=5)
CODEC = CodecConfig(
    semantic_codebook_size=16,
    semantic_dim=6,
    acoustic_dim=3,
    dim=16,
    hidden_dim=24,
    head_dim=8,
    n_heads=2,
    n_kv_heads=2,
)


def steps(task: Task, count: int, start: int = 0) -> list[dict[str, float]]:
    rows = []
    for step in range(start, start + count):
        rows.append({k: float(v.detach()) for k, v in task.train_step(step).items()})
    return rows


def mean(rows: list[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)
