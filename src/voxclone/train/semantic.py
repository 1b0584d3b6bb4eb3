"""Semantic distillation: the semantic stream is taught what a recogniser hears.

The teacher's hidden states are computed once over whole clips and kept in a file of half-precision
numbers, several to a codec frame. A linear projection of the quantised semantic stream must point
the way they point (cosine distance), one projection for each teacher frame inside a codec frame.

Shapes: B batch, D semantic width, T codec frames, R teacher frames in a codec frame, E teacher
width, U teacher frames of all clips.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.data.corpus import Corpus, Crops
from voxclone.io import atomic_file
from voxclone.models.ctc_asr import HOP, STRIDE, Recogniser
from voxclone.train import ranks


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


@torch.no_grad()
def states_by_frame(recogniser: Recogniser, wave_BS: Tensor, frame_size: int) -> Tensor:
    """A recogniser's states [B, T, R, E] of waveforms [B, S]; zeros fill up the last frame."""
    per_frame = frame_size // (HOP * STRIDE)
    states_BUE = recogniser.hidden(recogniser.features(wave_BS)).float()
    missing = -states_BUE.shape[1] % per_frame
    return F.pad(states_BUE, (0, 0, 0, missing)).unflatten(1, (-1, per_frame))


class Distillation(nn.Module):
    """1 - cosine between projections of the semantic stream and the teacher's states."""

    def __init__(self, semantic_dim: int, teacher_dim: int, per_frame: int) -> None:
        super().__init__()
        self.teacher_dim = teacher_dim
        self.projection = nn.Linear(semantic_dim, per_frame * teacher_dim)

    def forward(self, semantic_BDT: Tensor, target_BTRE: Tensor) -> Tensor:
        projected = self.projection(semantic_BDT.transpose(1, 2)).float()
        projected_BTRE = projected.unflatten(-1, (-1, self.teacher_dim))
        heard_BTR = target_BTRE.abs().sum(dim=-1) > 0
        distance_BTR = 1 - F.cosine_similarity(projected_BTRE, target_BTRE, dim=-1)
        return (distance_BTR * heard_BTR).sum() / ranks.mean(heard_BTR.sum().float()).clamp(min=1)


def teacher_features(
    recogniser: Recogniser,
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
