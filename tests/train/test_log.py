"""What a run writes down can be read: JSON by every reader of JSON, TensorBoard by TensorBoard."""

import json
import math
from pathlib import Path
from typing import Any

from tests.train import victim
from tests.train.victim import settings_of, train
from voxclone.train.log import Log


def strict(path: Path) -> list[dict[str, Any]]:
    """The rows of a log, by a reader that takes nothing but JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def test_every_line_of_a_run_with_a_skipped_step_is_json(tmp_path: Path) -> None:
    task = victim.victim(settings_of(run={"steps": 4}))
    task.poisoned = frozenset([1])
    train(tmp_path, task)
    rows = [row for row in strict(tmp_path / "log.jsonl") if "loss/total" in row]
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[0]["loss/total"] is None and rows[0]["other/grad_norm"] is None
    assert rows[0]["other/skipped"] == 1 and all(value is not None for value in rows[1].values())


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.scalars(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1 / 3})
    log.close()
    (row,) = strict(tmp_path / "log.jsonl")
    assert row["a"] is row["b"] is row["c"] is None and row["d"] == 0.333333
