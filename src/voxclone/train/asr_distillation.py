"""ASR distillation (arXiv 2603.25551, 2.1): what Whisper says must be found in the semantic stream.

Shapes: S samples, L tokens, E width of Whisper, T codec frames, B batch, D semantic width.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from voxclone.io import atomic_path
from voxclone.models.whisper import AsrTargets, WhisperTeacher
from voxclone.train import ranks

FORMAT = 2


class TargetStore:
    """Targets in a folder, by the content of clip and text: made once, read at every epoch."""

    def __init__(self, teacher: WhisperTeacher, folder: Path) -> None:
        self.teacher, self.folder = teacher, folder

    def targets(
        self, wave_S: Tensor, frames: int, text: str | None = None, language: str | None = None
    ) -> AsrTargets:
        """As `WhisperTeacher.targets`, kept in half precision."""
        teacher = self.teacher
        defects = ("squeezed",) * teacher.squeezed + ("every token",) * teacher.every_token
        asked = (FORMAT, teacher.name, teacher.heads, frames, text, language, *defects)
        digest = hashlib.sha256(repr(asked).encode())
        digest.update(wave_S.detach().cpu().contiguous().numpy().tobytes())
        path = self.folder / digest.hexdigest()[:2] / f"{digest.hexdigest()}.safetensors"
        if not path.exists():
            made = teacher.targets(wave_S, frames, text, language)
            path.parent.mkdir(parents=True, exist_ok=True)
            tensors = {"state": made.state_LE.half(), "share": made.share_LT.half()}
            with atomic_path(path) as temporary:
                save_file(tensors, temporary)
        stored = load_file(path)
        return AsrTargets(stored["state"].float(), stored["share"].float())


def spoken_loss(
    projection: nn.Linear,
    semantic_BDT: Tensor,
    targets: Sequence[AsrTargets],
    starts: Sequence[int],
    history: int,
) -> Tensor:
    """1 - cosine of each token's state and the semantic stream [B, D, T] where it was said, after
    the projection to Whisper's width; crops begin at the frames `starts` of their clips.

    Tokens count by the share of them that lies in the crop: a clip's tokens before and after it
    count for nothing, nor does what lies on the first `history` frames of a crop that begins within
    its clip, whose past the encoder has not heard.
    """
    frames = semantic_BDT.shape[-1]
    projected_BTE = projection(semantic_BDT.transpose(1, 2)).float()
    total, mass = projected_BTE.new_zeros(()), projected_BTE.new_zeros(())
    for projected_TE, target, start in zip(projected_BTE, targets, starts, strict=True):
        past = history if start else 0
        share_LT = target.share_LT[:, start + past : start + frames].to(projected_TE)
        said_LE = share_LT @ projected_TE[past : past + share_LT.shape[1]]
        weight_L = share_LT.sum(dim=1)
        distance_L = 1 - F.cosine_similarity(said_LE, target.state_LE.to(projected_TE), dim=-1)
        total = total + (distance_L * weight_L).sum()
        mass = mass + weight_L.sum()
    return total / ranks.mean(mass).clamp(min=1e-6)
