"""ASR distillation: the semantic stream must hold an ASR model's states (arXiv 2603.25551, 2.1).

Two teachers. *Whisper*, as in the paper: the last decoder states, one for each token, must be found
in the semantic stream where the cross-attention says that the token was spoken
(`models.whisper`). *A CTC recognizer*, which taught the mini release: its states at 50 Hz must be
found frame by frame. Both losses are 1 - cosine after a learned linear projection of the quantized
stream.

Shapes: B batch, S samples, D semantic width, T codec frames, R teacher frames in a codec frame,
E teacher width, L tokens.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.codec.model import Codec
from voxclone.data.corpus import Corpus, Crops
from voxclone.models.ctc_asr import HOP, STRIDE, Recognizer, states_by_frame
from voxclone.models.whisper import LONGEST_SECONDS, AsrTargets, TargetStore
from voxclone.spec import SAMPLING_RATE
from voxclone.train import distributed


class Distillation(nn.Module):
    """1 - cosine between projections of the semantic stream and the teacher's states, one for each
    teacher frame inside a codec frame."""

    def __init__(self, semantic_dim: int, teacher_dim: int, per_frame: int) -> None:
        super().__init__()
        self.teacher_dim = teacher_dim
        self.projection = nn.Linear(semantic_dim, per_frame * teacher_dim)

    def forward(self, semantic_BDT: Tensor, target_BTRE: Tensor) -> Tensor:
        projected = self.projection(semantic_BDT.transpose(1, 2)).float()
        projected_BTRE = projected.unflatten(-1, (-1, self.teacher_dim))
        known_BTR = target_BTRE.abs().sum(dim=-1) > 0
        distance_BTR = 1 - F.cosine_similarity(projected_BTRE, target_BTRE, dim=-1)
        count = distributed.mean(known_BTR.sum().float()).clamp(min=1)
        return (distance_BTR * known_BTR).sum() / count


class CTCDistillation:
    """Distillation from the states of a frozen CTC recognizer, each of mean 0 and variance 1 over
    its width. `module` learns."""

    def __init__(self, teacher: Recognizer, semantic_dim: int, frame_size: int) -> None:
        self.teacher, self.frame_size = teacher.eval().requires_grad_(False), frame_size
        per_frame = frame_size // (HOP * STRIDE)
        self.module: nn.Module = Distillation(semantic_dim, teacher.config.dim, per_frame)

    def loss(self, semantic_BDT: Tensor, wave_BS: Tensor, crops: Crops) -> Tensor:
        """The loss of the quantized semantic stream of crops [B, S]."""
        teacher = self.teacher.to(wave_BS.device)
        states_BTRE = states_by_frame(teacher, wave_BS, self.frame_size)
        loss: Tensor = self.module(semantic_BDT, F.layer_norm(states_BTRE, states_BTRE.shape[-1:]))
        return loss


class WhisperDistillation:
    """Distillation from Whisper's tokens in the whole clips that crops are from; those longer than
    Whisper's window are left out. `module` learns. The first `left_context` frames of a crop
    that begins within its clip do not count."""

    def __init__(
        self,
        targets: TargetStore,
        corpus: Corpus,
        semantic_dim: int,
        frame_size: int,
        left_context: int,
    ) -> None:
        self.targets, self.corpus = targets, corpus
        self.frame_size, self.left_context = frame_size, left_context
        self.module: nn.Module = nn.Linear(semantic_dim, targets.teacher.width)

    def loss(self, semantic_BDT: Tensor, wave_BS: Tensor, crops: Crops) -> Tensor:
        """The loss of the quantized semantic stream of crops on the grid of codec frames."""
        corpus, size = self.corpus, self.frame_size
        targets, starts, rows = [], [], []
        for row, (index, start) in enumerate(zip(crops.indices, crops.starts, strict=True)):
            if corpus.length(index) > LONGEST_SECONDS * SAMPLING_RATE:
                continue
            frames = -(-corpus.length(index) // size)
            clip, wave_S = corpus.clips[index], corpus.wave(index)
            targets.append(self.targets.of(wave_S, frames, clip.text, clip.language))
            starts.append(start // size)
            rows.append(row)
        projection = self.module
        return token_loss(projection, semantic_BDT[rows], targets, starts, self.left_context)


def build_distillation(
    teacher: Recognizer | TargetStore, corpus: Corpus, codec: Codec, left_context: int
) -> CTCDistillation | WhisperDistillation:
    """Distillation from a teacher. Draws the projection from PyTorch's global generator."""
    width, size = codec.config.semantic_dim, codec.frame_size
    if isinstance(teacher, TargetStore):
        return WhisperDistillation(teacher, corpus, width, size, left_context)
    return CTCDistillation(teacher, width, size)


def token_loss(
    projection: nn.Module,
    semantic_BDT: Tensor,
    targets: Sequence[AsrTargets],
    starts: Sequence[int],
    left_context: int,
) -> Tensor:
    """1 - cosine of each token's state and the semantic stream [B, D, T] where it was spoken, after
    the projection to Whisper's width; crops begin at the frames `starts` of their clips.

    Tokens count by the share of them that lies in the crop: a clip's tokens before and after it
    count for nothing, nor does what lies on the first `left_context` frames of a crop that begins
    within its clip, whose past the encoder has not seen.
    """
    frames = semantic_BDT.shape[-1]
    projected_BTE = projection(semantic_BDT.transpose(1, 2)).float()
    total, mass = projected_BTE.new_zeros(()), projected_BTE.new_zeros(())
    for projected_TE, target, start in zip(projected_BTE, targets, starts, strict=True):
        past = left_context if start else 0
        share_LT = target.share_LT[:, start + past : start + frames].to(projected_TE)
        token_LE = share_LT @ projected_TE[past : past + share_LT.shape[1]]
        weight_L = share_LT.sum(dim=1)
        distance_L = 1 - F.cosine_similarity(token_LE, target.state_LE.to(projected_TE), dim=-1)
        total = total + (distance_L * weight_L).sum()
        mass = mass + weight_L.sum()
    return total / distributed.mean(mass).clamp(min=1e-6)
