"""States of the recogniser of all clips: computed once over whole clips and kept in a file of
half-precision numbers, several to a codec frame.

Shapes: B batch, T codec frames, R teacher frames in a codec frame, E teacher width, U teacher
frames of all clips.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.data.corpus import Corpus, Crops
from voxclone.io import atomic_file
from voxclone.models.ctc_asr import HOP, STRIDE, Recognizer


@dataclass(frozen=True)
class TeacherFeatures:
    """Standardised teacher states of a packed corpus. `hop` is in samples."""

    values_UE: np.ndarray
    starts: np.ndarray
    mean_E: Tensor
    scale_E: Tensor
    hop: int
    per_frame: int

    @property
    def dim(self) -> int:
        return int(self.values_UE.shape[1])

    def crops(self, crops: Crops) -> Tensor:
        """States [B, T, R, E] under crops that start on the teacher's grid; silence after the end
        of a clip has states of zero, which have no direction and so no loss."""
        frames = crops.wave_BS.shape[-1] // self.hop
        result = torch.zeros(len(crops.indices), frames, self.dim)
        for row, (index, start) in enumerate(zip(crops.indices, crops.starts, strict=True)):
            begin = int(self.starts[index]) + start // self.hop
            end = min(int(self.starts[index + 1]), begin + frames)
            states = torch.from_numpy(self.values_UE[begin:end].astype(np.float32))
            result[row, : end - begin] = (states - self.mean_E) / self.scale_E
        return result.unflatten(1, (-1, self.per_frame))


def teacher_features(
    recogniser: Recognizer,
    corpus: Corpus,
    frame_size: int,
    folder: Path,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> TeacherFeatures:
    """The states of every clip, made once in `folder` and opened from there afterwards."""
    hop = HOP * STRIDE
    counts = [-(-corpus.length(index) // hop) for index in range(len(corpus))]
    starts = np.concatenate([[0], np.cumsum(counts)])
    dim = recogniser.config.dim
    state = recogniser.state_dict()
    digest = hashlib.sha256(b"".join(state[k].numpy().tobytes() for k in sorted(state)))
    digest.update("\n".join(clip.id for clip in corpus.clips).encode())
    path = folder / f"teacher-{digest.hexdigest()[:16]}.f16"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file, torch.inference_mode():
            recogniser.eval()
            for index in track(range(len(corpus))):
                states = recogniser.hidden(recogniser.features(corpus.wave(index)[None]))[0]
                states = F.pad(states, (0, 0, 0, max(0, counts[index] - len(states))))
                file.write(states[: counts[index]].numpy().astype(np.float16).tobytes())
    values = np.memmap(path, dtype=np.float16, mode="r", shape=(int(starts[-1]), dim))
    sample = torch.from_numpy(values[:: max(1, len(values) // 100_000)].astype(np.float32))
    mean_E, scale_E = sample.mean(dim=0), sample.std(dim=0).clamp(min=1e-3)
    return TeacherFeatures(values, starts, mean_E, scale_E, hop, frame_size // hop)
