"""What a run writes down: JSON lines always, TensorBoard beside them where it is installed."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor


class Log:
    """Scalars, audio and text of one run, in `folder`; without a folder, nothing is written."""

    def __init__(self, folder: Path | None, *, sampling_rate: int = 24000) -> None:
        self._rate = sampling_rate
        self._board: Any = None
        self._lines: TextIO | None = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = (folder / "log.jsonl").open("a", encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.board_missing = True
        else:
            self.board_missing = False
            self._board = SummaryWriter(str(folder / "tensorboard"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Named figures of a step; the part of a name before `/` is its group. JSON has no word for
        what is not finite (the losses of a step that was skipped): there it is null."""
        if self._lines is None:
            return
        row: dict[str, float | None] = {"step": step, "time": round(time.time(), 1)}
        for name, value in values.items():
            row[name] = float(f"{value:.6g}") if math.isfinite(value) else None
        self._lines.write(json.dumps(row, allow_nan=False) + "\n")
        self._lines.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()

    def audio(self, step: int, name: str, wave_S: Tensor) -> None:
        """A waveform, for TensorBoard alone."""
        if self._board is not None:
            clipped = wave_S.detach().float().cpu().clamp(-1, 1)
            self._board.add_audio(name, clipped[None], step, self._rate)

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()
        if self._board is not None:
            self._board.close()
