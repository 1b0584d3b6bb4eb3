"""What a run writes down: JSON lines always, TensorBoard beside them where it is installed.

Shapes: S samples, N codes, M mel bands, T frames.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from voxclone.audio.spectrum import mel_spectrogram
from voxclone.spec import SAMPLING_RATE

N_FFT, HOP, BANDS = 1024, 240, 128
DARKEST, BRIGHTEST = -2.0, 2.0
"""Log10 of mel magnitudes. They do not depend on the clip, so that a recording and what became of
it can be compared by eye."""
MOST_BINS = 256


class Log:
    """Scalars, audio and histograms of one run, in `folder`; without a folder, nothing is
    written."""

    def __init__(self, folder: Path | None, *, sampling_rate: int = SAMPLING_RATE) -> None:
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
        """A waveform, and its spectrogram as NAME_mel, for TensorBoard alone."""
        if self._board is None:
            return
        wave_S = wave_S.detach().float().cpu()
        self._board.add_audio(name, wave_S.clamp(-1, 1)[None], step, self._rate)
        picture_MT = spectrogram(wave_S, self._rate)
        self._board.add_image(f"{name}_mel", picture_MT, step, dataformats="HW")

    def codes(self, step: int, name: str, code_N: Tensor, count: int) -> None:
        """How often each of the codes 0 to `count` - 1 occurs, for TensorBoard alone. Where they
        are many, a bar is as many of them as its neighbours are."""
        if self._board is None:
            return
        width = -(-count // MOST_BINS)
        edges = np.arange(0, count + width, width) - 0.5
        self._board.add_histogram(name, code_N.detach().cpu().long().numpy(), step, bins=edges)

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()
        if self._board is not None:
            self._board.close()


def spectrogram(wave_S: Tensor, rate: int) -> np.ndarray:
    """Grey [M, T] (uint8), the highest band first, 10 ms a column at 24 kHz."""
    mel_MT = mel_spectrogram(wave_S[None], N_FFT, HOP, BANDS, rate)[0].clamp(min=1e-5).log10()
    share_MT = ((mel_MT - DARKEST) / (BRIGHTEST - DARKEST)).nan_to_num().clamp(0, 1)
    grey_MT: np.ndarray = (255 * share_MT).round().to(torch.uint8).flip(0).numpy()
    return grey_MT
