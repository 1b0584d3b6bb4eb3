"""Defects of a published recipe, as switches of an ablation. All are off unless a config says so.

They are what was found in the code of the community's encoder (Al0olo/voxtral-voice-clone,
`train_encoder.py` at 24974a2, "V3"; `cut_features` is of 4e8fb28, "V2"). Those of the forward pass
hang on the encoder as hooks that act in training only: the encoder that is saved, validated and
served has none of them, as in the runtimes, which is half of the harm that they do.

Shapes: B batch, T positions or frames, D width, R teacher frames in a codec frame, E teacher width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.codec.layers import Transformer, TransformerBlock
from voxclone.codec.model import Encoder
from voxclone.codec.quantizer import Quantizer
from voxclone.config import Settings
from voxclone.models.whisper import LONGEST_SECONDS, WhisperTeacher

INNER_SLOPE = 0.3
LAYER_SCALE = 0.1


class Defects(Settings):
    """Which of them a training has."""

    double_tanh: bool = False
    """The encoder ends with tanh(0.3 z) on the acoustic channels, and the quantizer has its own
    tanh: of levels 0 to 20 only 2 to 18 can be reached."""
    batch_leak: bool = False
    """The encoder's transformers see the items of a batch as one long clip: the beginning of each
    attends to the end of the one before it."""
    squeezed_alignment: bool = False
    """What a teacher hears in 30 s of padded audio is laid over the frames of the clip: every word
    comes too early by 30 s over the clip's length."""
    every_head: bool = False
    """Alignment by all heads of Whisper's last layer, most of which follow no words."""
    every_token: bool = False
    """Start, language, task and end are targets like words."""
    before_quantising: bool = False
    """Distillation of the latent instead of the code vector that it becomes."""
    commit_levels: bool = False
    """The commitment is the distance of all channels from what was read of them; with the double
    tanh it draws the acoustic ones to the middle."""
    plain_start: bool = False
    """PyTorch's first weights and layer scales of 0.1 (the release: 0.01): latents begin near zero,
    far below the code vectors, and all have the code of the shortest one."""
    cut_features: bool = False
    """Feature matching whose gradient ends at the waveform (V2)."""


def install(encoder: Encoder, defects: Defects) -> None:
    """Give an encoder the defects of its forward pass, while it is in training mode."""
    if defects.batch_leak:
        for module in encoder.modules():
            if isinstance(module, Transformer):
                _leak(module)
    if defects.double_tanh:
        encoder.register_forward_hook(_inner_tanh)


def start_plainly(encoder: Encoder) -> None:
    """Layer scales of 0.1; PyTorch's own first weights are there already."""
    for block in encoder.modules():
        if isinstance(block, TransformerBlock):
            for scale_D in (block.attention_scale, block.ffn_scale):
                if scale_D is not None:
                    nn.init.constant_(scale_D, LAYER_SCALE)


def misalign(teacher: WhisperTeacher, defects: Defects) -> WhisperTeacher:
    """The teacher, with the defects of its targets."""
    teacher.squeezed = defects.squeezed_alignment
    teacher.every_token = defects.every_token
    if defects.every_head:
        teacher.heads = teacher.last_heads()
    return teacher


def squeeze(states_BTRE: Tensor, frame_rate: float) -> Tensor:
    """A recogniser's states [B, T, R, E] as `squeezed_alignment` has them: frame t gets what is
    heard at t times 30 s over the length of the clip, and zeros where that is padding."""
    frames = states_BTRE.shape[1]
    padded = round(LONGEST_SECONDS * frame_rate)
    at_T = torch.arange(frames, device=states_BTRE.device) * max(padded, frames) // frames
    heard_T = at_T < frames
    return states_BTRE[:, at_T.clamp(max=frames - 1)] * heard_T[:, None, None]


def commitment_of_all(quantizer: Quantizer, latent_BDT: Tensor, codes_BKT: Tensor) -> Tensor:
    """Mean squared distance of all channels from what `codes` decode to (`commit_levels`)."""
    return F.mse_loss(latent_BDT, quantizer.decode(codes_BKT, latent_BDT.dtype))


def _leak(transformer: Transformer) -> None:
    batch = [1]

    def join(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        x_BTD, *others = arguments
        batch[0] = len(x_BTD)
        return (x_BTD.flatten(0, 1)[None], *others) if module.training else None

    def part(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return output[0].unflatten(0, (batch[0], -1)) if module.training else None

    transformer.register_forward_pre_hook(join)
    transformer.register_forward_hook(part)


def _inner_tanh(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
    if not module.training:
        return None
    assert isinstance(module, Encoder)
    semantic_BDT, acoustic_BDT = output.tensor_split((module.config.semantic_dim,), dim=1)
    return torch.cat([semantic_BDT, torch.tanh(INNER_SLOPE * acoustic_BDT)], dim=1)
