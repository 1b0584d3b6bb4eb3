"""Labels of speech: the likeliest semantic codes of each frame, and their files.

Shapes: T frames, J kept codes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from voxclone.io import atomic_path, tensor_errors

TOP_K = 8
"""So many of a frame's likeliest codes are kept."""


@dataclass(frozen=True)
class Label:
    """A clip's codes [T, J] and their probabilities [T, J]."""

    code_TJ: Tensor
    weight_TJ: Tensor


def save_labels(path: Path, labels: Mapping[int, Label], clips: str) -> None:
    """Write labels by clip, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for index, label in labels.items():
        tensors[f"{index}.code"] = label.code_TJ.to(torch.int16)
        tensors[f"{index}.weight"] = label.weight_TJ.to(torch.float16)
    with atomic_path(path) as temporary, tensor_errors():
        save_file(tensors, temporary, {"clips": clips})


def load_labels(path: Path) -> tuple[dict[int, Label], str]:
    """Read what `save_labels` wrote."""
    with safe_open(path, "pt") as file:
        clips = (file.metadata() or {}).get("clips", "")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    indices = sorted({int(name.partition(".")[0]) for name in tensors})
    labels = {
        i: Label(tensors[f"{i}.code"].long(), tensors[f"{i}.weight"].float()) for i in indices
    }
    return labels, clips
