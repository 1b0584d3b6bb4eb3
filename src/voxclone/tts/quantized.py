"""Linear layers with weights of 8 or 4 bits, for speech on a CPU, where reading weights is what
takes the time.

- int8: a scale for each row of the matrix; FBGEMM multiplies integers. Activations keep some 14
  bits: they are split into 7 bits and the next 7, as two rows of one product. One row of 8 bits
  would lose everything beside a large activation, and language models have such.
- int4: a scale and a zero point for 32 weights of a row, rounded to the nearest; torch's 4-bit
  kernel for CPUs multiplies in bf16. It takes few rows, so only the language model has it. The
  acoustic head, whose steps have six rows, has int8 with both.

Shapes: O and I sizes of a matrix, R rows of it, G groups of a row, M rows of a batch.
"""

import ctypes
import os
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from voxclone.errors import ConfigError
from voxclone.tts.limits import Weights

GROUP = 32
STEPS = 63
"""Of activations, to either side: the sum of two products of 7 and 8 bits fits 16 bits, which CPUs
without VNNI add in."""
ROWS = 256
"""Of a matrix, packed at a time: 3 MB in fp32 stay in the cache."""
ENGINE = "fbgemm"
UNPACKED = ("input_projection", "acoustic_codebook_output")
"""Layers of the acoustic head that have 36 rows or columns: there is nothing to gain."""


class Int8Linear(nn.Module):
    """x W^T with W [O, I] in 8 bits, one scale for each row."""

    def __init__(self, weight_OI: Tensor) -> None:
        super().__init__()
        scale_O = (weight_OI.abs().amax(dim=1).float() / 127).clamp(min=1e-12)
        levels_OI = torch.empty(weight_OI.shape, dtype=torch.int8)
        blocks = zip(*(x.split(ROWS) for x in (weight_OI, scale_O, levels_OI)), strict=True)
        for weight_RI, scale_R, levels_RI in blocks:
            levels_RI.copy_((weight_RI / scale_R[:, None]).round_())
        zeros_O = torch.zeros(len(levels_OI), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor")  # no other way in
            made_OI = torch._make_per_channel_quantized_tensor(
                levels_OI, scale_O.double(), zeros_O, 0
            )
        self.packed: Any = torch.ops.quantized.linear_prepack(made_OI, None)

    def dequantized(self) -> Tensor:
        """The weights [O, I] that the packed ones stand for, in fp32."""
        packed_OI: Tensor = torch.ops.quantized.linear_unpack(self.packed)[0]
        return packed_OI.dequantize()

    def forward(self, x: Tensor) -> Tensor:
        x_MI = x.flatten(0, -2).float()
        scale_M1 = x_MI.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / STEPS
        scaled_MI = x_MI / scale_M1
        coarse_MI = scaled_MI.round()
        fine_MI = (scaled_MI - coarse_MI) * (2 * STEPS)
        both_MO = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            torch.cat([coarse_MI, fine_MI]), 1.0, STEPS + 1, self.packed
        )
        coarse_MO, fine_MO = both_MO.chunk(2)
        y_MO = torch.addcmul(coarse_MO * scale_M1, fine_MO, scale_M1 / (2 * STEPS))
        return y_MO.view(*x.shape[:-1], -1).to(x.dtype)


class Int4Linear(nn.Module):
    """x W^T with W [O, I] in 4 bits, one scale and zero point for each group of a row."""

    def __init__(self, weight_OI: Tensor) -> None:
        super().__init__()
        rows, columns = weight_OI.shape
        if rows % 16 or columns % GROUP:
            raise ConfigError(
                f"Weights of 4 bits need matrices of a multiple of 16 rows and {GROUP} columns, "
                f"and this release has one of {rows} and {columns}: use `--weights int8`."
            )
        levels_OI = torch.empty(weight_OI.shape, dtype=torch.int32)
        scales = []
        for weight_RI, levels_RI in zip(weight_OI.split(ROWS), levels_OI.split(ROWS), strict=True):
            groups_RGI = weight_RI.float().unflatten(1, (-1, GROUP))
            least_RG, most_RG = groups_RGI.aminmax(dim=-1)
            scale_RG = ((most_RG - least_RG) / 15).clamp(min=1e-12).bfloat16()
            middle_RG = (least_RG + 8 * scale_RG.float()).bfloat16()  # where the kernel has a zero
            scaled_RGI = (groups_RGI - middle_RG.float()[..., None]) / scale_RG.float()[..., None]
            levels_RI.copy_((scaled_RGI + 8).round_().clamp_(0, 15).flatten(1))
            scales.append(torch.stack([scale_RG, middle_RG], dim=-1))
        self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels_OI, 1)
        self.scales_GO2 = torch.cat(scales).transpose(0, 1).contiguous()

    def dequantized(self) -> Tensor:
        """The weights [O, I] that the packed ones stand for, in fp32; as slow as a long prompt."""
        identity_II = torch.eye(len(self.scales_GO2) * GROUP)
        return self(identity_II).T

    def forward(self, x: Tensor) -> Tensor:
        x_MI = x.flatten(0, -2).bfloat16()
        y_MO: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            x_MI, self.packed, GROUP, self.scales_GO2
        )
        return y_MO.view(*x.shape[:-1], -1).to(x.dtype)


def pack_layer(module: nn.Module, name: str, weight_OI: Tensor, weights: Weights) -> bool:
    """Put a packed layer in the place of the linear one whose weight has this name in `module`.
    False if `name` is no such weight, or its layer stays as it is. Raises ConfigError for a matrix
    that 4 bits do not fit."""
    layer = name.removesuffix(".weight")
    is_linear = isinstance(module.get_submodule(layer), nn.Linear)
    if not is_linear or layer in UNPACKED:
        return False
    kind = Int8Linear if weights == "int8" else Int4Linear
    module.set_submodule(layer, kind(weight_OI))
    _return_freed_pages()
    return True


def _return_freed_pages() -> None:
    """Give the pages of freed blocks back to the system. What packing frees lies in holes that
    glibc keeps and that the next matrix does not fit: 0.5 GB at the real size."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def require_kernels(device: str | torch.device) -> None:
    """Raise ConfigError where the kernels of packed layers do not run."""
    if torch.device(device).type != "cpu":
        raise ConfigError(
            f"Weights of 8 or 4 bits are for CPUs, and the device is {device}: leave out "
            "`--weights`, or add `--device cpu`."
        )
    if ENGINE not in torch.backends.quantized.supported_engines:
        raise ConfigError(
            f"This build of PyTorch has no {ENGINE}, which multiplies weights of 8 bits (only "
            "those for x86 have it): leave out `--weights`."
        )
