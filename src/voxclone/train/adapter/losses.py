"""Losses of an adapter, each a mean over items.

On speech of the release, whose codes are known. The teacher is the frozen base and reads the true
codes; the student reads the encoder's codes of the decoded audio:
- `hidden`: squared distance of the states of all layers, as a share of their power (RLX);
- `semantic_kl`: KL of the distributions of semantic codes; `velocity`: squared distance of the
  head's velocities.

On real speech, a voice from one clip and the words of another one (arXiv 2603.25551, 3.1):
- `semantic`: cross-entropy of semantic codes, the END code with a weight of its own;
- `flow`: squared error of the velocity, weighted by (1 - t)^2: at late times the noise cannot be
  known, and outweighs what is learned of voices.

- `preset`: KL and squared distance of velocities to the frozen base on prompts of presets;
- `embedding`: the statistics of voices against those of presets.

Shapes: B items, L positions, D width, N predicted frames, C acoustic channels, V semantic outputs,
M frames of voices, E principal directions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.spec import EMPTY_AUDIO, END_AUDIO, SHIFT
from voxclone.train import distributed
from voxclone.train.adapter.reading import FlowDraw, Reading, velocities
from voxclone.tts.acoustic import AcousticHead

DIRECTIONS = 32


def item_means(value_N: Tensor, item_N: Tensor, weight_N: Tensor | None = None) -> Tensor:
    """The mean over items of the (weighted) mean of each item's values."""
    weight_N = torch.ones_like(value_N) if weight_N is None else weight_N
    zero_B = value_N.new_zeros(int(item_N.max()) + 1)
    sum_B = zero_B.index_add(0, item_N, value_N * weight_N)
    return (sum_B / zero_B.index_add(0, item_N, weight_N)).mean()


def hidden_loss(
    student_BLD: Sequence[Tensor], teacher_BLD: Sequence[Tensor], counts_BL: Tensor
) -> Tensor:
    """Squared distance over the teacher's power, over the positions that count; the mean over
    layers."""
    shares = []
    for own_BLD, other_BLD in zip(student_BLD, teacher_BLD, strict=True):
        distance_BL = (own_BLD.float() - other_BLD.float()).square().sum(dim=-1) * counts_BL
        power_BL = other_BLD.float().square().sum(dim=-1) * counts_BL
        shares.append((distance_BL.sum(dim=1) / power_BL.sum(dim=1)).mean())
    return torch.stack(shares).mean()


def semantic_log_probs(head: AcousticHead, hidden_ND: Tensor) -> Tensor:
    """Log-probabilities [N, V] of END_AUDIO and of all codes."""
    usable = slice(EMPTY_AUDIO + 1, SHIFT + head.semantic_size)
    log_prob_NV: Tensor = head.semantic_logits(hidden_ND)[:, usable].log_softmax(dim=-1)
    return log_prob_NV


def kl_loss(student_NV: Tensor, teacher_NV: Tensor, item_N: Tensor) -> Tensor:
    """KL(teacher || student) of log-probabilities."""
    kl_N = (teacher_NV.exp() * (teacher_NV - student_NV)).sum(dim=-1)
    return item_means(kl_N, item_N)


def semantic_loss(log_prob_NV: Tensor, reading: Reading, end_weight: float) -> Tensor:
    """Cross-entropy of the semantic codes."""
    target_N = reading.batch.target_NK[:, 0]
    loss_N = F.nll_loss(log_prob_NV, target_N - END_AUDIO, reduction="none")
    weight_N = torch.ones_like(loss_N).masked_fill(target_N == END_AUDIO, end_weight)
    return item_means(loss_N, reading.item_N, weight_N)


def flow_loss(velocity_NC: Tensor, draw: FlowDraw, reading: Reading) -> Tensor:
    """Weighted squared error of velocities on the way from noise to data."""
    error_NC = velocity_NC - (draw.data_NC - draw.noise_NC)
    loss_N = ((1 - draw.time_N)[:, None] * error_NC).square().mean(dim=-1)
    return item_means(loss_N, reading.item_N[draw.speaks_N])


def velocity_loss(
    head: AcousticHead, hidden_ND: Tensor, teacher_NC: Tensor, draw: FlowDraw, reading: Reading
) -> Tensor:
    """Squared distance of the student's velocities to the teacher's."""
    distance_NC = velocities(head, hidden_ND, draw) - teacher_NC
    return item_means(distance_NC.square().mean(dim=-1), reading.item_N[draw.speaks_N])


@dataclass(frozen=True)
class EmbeddingShape:
    """The statistics of presets' frames: mean norm, mean and standard deviation of each dimension
    [D], principal directions [E, D], and the share of their power outside these."""

    norm: Tensor
    mean_D: Tensor
    std_D: Tensor
    directions_ED: Tensor
    outside: Tensor

    @classmethod
    def of(cls, presets_ND: Sequence[Tensor]) -> "EmbeddingShape":
        """Of the embeddings [N, D] of presets, without their END frames."""
        frames_MD = torch.cat([each[:-1] for each in presets_ND]).float()
        mean_D = frames_MD.mean(dim=0)
        centered_MD = frames_MD - mean_D
        count = min(DIRECTIONS, *centered_MD.shape)
        directions_ED = torch.linalg.svd(centered_MD, full_matrices=False).Vh[:count]
        return cls(
            frames_MD.norm(dim=-1).mean(), mean_D, centered_MD.std(dim=0), directions_ED,
            _outside(centered_MD, directions_ED).sum() / centered_MD.square().sum(),
        )  # fmt: skip


def embedding_loss(voices_ND: Sequence[Tensor], shape: EmbeddingShape) -> Tensor:
    """How the frames of voices differ from those of presets: in mean norm (squared, as a share), in
    mean and standard deviation of each dimension, and in the share of power outside the presets'
    principal directions, as far as that is larger. Statistics are of the whole batch."""
    frames_MD = torch.cat([each[:-1] for each in voices_ND]).float()
    count = distributed.mean(frames_MD.new_tensor(float(len(frames_MD))))
    norm = distributed.mean(frames_MD.norm(dim=-1).sum()) / count
    mean_D = distributed.mean(frames_MD.sum(dim=0)) / count
    std_D = (distributed.mean((frames_MD - mean_D).square().sum(dim=0)) / count).sqrt()
    centered_MD = frames_MD - shape.mean_D
    power = distributed.mean(centered_MD.square().sum())
    outside = distributed.mean(_outside(centered_MD, shape.directions_ED).sum()) / power
    scale_D = shape.std_D.clamp(min=1e-6)
    statistics_D = ((mean_D - shape.mean_D) / scale_D).square() + (std_D / scale_D - 1).square()
    return (
        (norm / shape.norm - 1).square()
        + statistics_D.mean()
        + (outside - shape.outside).clamp(min=0)
    )


def _outside(centered_MD: Tensor, directions_ED: Tensor) -> Tensor:
    """Power [M] of frames outside of directions."""
    inside_M = (centered_MD @ directions_ED.T).square().sum(dim=-1)
    return (centered_MD.square().sum(dim=-1) - inside_M).clamp(min=0)
