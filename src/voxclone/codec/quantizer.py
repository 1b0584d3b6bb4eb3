"""Semantic vector quantization and acoustic finite scalar quantization (FSQ).

The numbers are vLLM-Omni's `MistralAudioCodebook`. Latents are [B, D, T]: the first `semantic_dim`
channels are semantic, the others acoustic and *before* the tanh, which is applied here and only
here. Codes are [B, K, T], semantic first, without the +2 of the language model.

Shapes: B batch, D latent width, T frames, K codebooks, V semantic code vectors, N rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.codec.config import CodecConfig
from voxclone.errors import VoxcloneError
from voxclone.rng import uniform

USAGE_FLOOR = 1e-5


def to_levels(value: Tensor, count: int) -> Tensor:
    """Values -1 .. 1 -> positions among `count` levels, 0 .. count - 1, not rounded yet."""
    return (value + 1) / 2 * (count - 1)


def to_values(level: Tensor, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Levels 0 .. count - 1 -> values -1 .. 1."""
    return (level * 2 / (count - 1) - 1).to(dtype)


class SemanticCodebook(nn.Module):
    """Nearest code vector in Euclidean distance; the vectors are EMA sums over EMA counts."""

    cluster_usage: Tensor
    embedding_sum: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("cluster_usage", torch.ones(size))
        self.register_buffer("embedding_sum", torch.zeros(size, dim))

    def vectors(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The codebook [V, D] in `dtype`; the division is carried out in that dtype, as the
        runtimes do (bf16 in vLLM-Omni)."""
        usage_V = self.cluster_usage.to(dtype).clamp(min=USAGE_FLOOR)
        return self.embedding_sum.to(dtype) / usage_V[:, None]

    def spread(self) -> Tensor:
        """Total variance of the code vectors, weighted by usage: a vector that is never used may
        lie anywhere."""
        vectors_VD = self.vectors()
        weight_V1 = (self.cluster_usage / self.cluster_usage.sum().clamp(min=USAGE_FLOOR))[:, None]
        mean_D = (weight_V1 * vectors_VD).sum(dim=0)
        return (weight_V1 * (vectors_VD - mean_D).square()).sum().clamp(min=1e-6)

    def squared_distances(self, latent_ND: Tensor) -> Tensor:
        """|z - e|^2 [N, V] of latents [N, D] to the code vectors, with gradients: what losses are
        made of."""
        vectors_VD = self.vectors()
        return (
            latent_ND.square().sum(-1, keepdim=True)
            - 2 * latent_ND @ vectors_VD.T
            + vectors_VD.square().sum(-1)
        )

    def encode(self, latent_BDT: Tensor) -> Tensor:
        """Codes [B, T], searched in the dtype of the latent."""
        latent_ND = latent_BDT.transpose(1, 2).flatten(0, 1)
        # The kernel that cdist takes for up to 25 rows knows fp32 alone; beyond, it multiplies.
        exact = latent_BDT.dtype == torch.float32
        mode = "use_mm_for_euclid_dist" + ("_if_necessary" if exact else "")
        distances_NV = torch.cdist(latent_ND, self.vectors(latent_BDT.dtype), compute_mode=mode)
        return distances_NV.argmin(dim=-1).view(latent_BDT.shape[0], latent_BDT.shape[2])

    def decode(self, codes_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Code vectors [B, D, T]."""
        return F.embedding(codes_BT, self.vectors(dtype)).transpose(1, 2)


@dataclass(frozen=True)
class Quantized:
    """What the decoder receives in training, and what was quantized on the way."""

    latent_BDT: Tensor
    codes_BKT: Tensor
    commitment: Tensor


@dataclass(frozen=True)
class QuantizationDraws:
    """Numbers 0 .. 1 that stochastic quantization depends on: two for each item, and one for each
    acoustic value."""

    semantic_B11: Tensor
    dither_BDT: Tensor
    acoustic_B11: Tensor


class Quantizer(nn.Module):
    """Both quantizers of a codec. It has no parameters; the codebook is a pair of buffers."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.semantic_dim = config.semantic_dim
        self.levels = config.acoustic_codebook_size
        self.semantic_codebook = SemanticCodebook(
            config.semantic_codebook_size, config.semantic_dim
        )

    def split(self, latent_BDT: Tensor) -> tuple[Tensor, Tensor]:
        """The semantic and the acoustic channels (views)."""
        return latent_BDT[:, : self.semantic_dim], latent_BDT[:, self.semantic_dim :]

    def encode(self, latent_BDT: Tensor) -> Tensor:
        """Latent [B, D, T] -> integer codes [B, K, T], in the dtype of the latent."""
        semantic_BDT, acoustic_BDT = self.split(latent_BDT)
        semantic_B1T = self.semantic_codebook.encode(semantic_BDT)[:, None]
        return torch.cat([semantic_B1T, self.levels_of(acoustic_BDT)], dim=1)

    def levels_of(self, acoustic_BDT: Tensor) -> Tensor:
        """FSQ levels 0 .. L-1 of the acoustic latent; halves are rounded to even, as torch does."""
        return to_levels(torch.tanh(acoustic_BDT), self.levels).round().long()

    def values_of(self, levels_BDT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Levels 0 .. L-1 -> values -1 .. 1."""
        return to_values(levels_BDT, self.levels, dtype)

    def check_codes(self, codes_BKT: Tensor) -> None:
        """Raise VoxcloneError for codes [B, K, T] of another type than int64 and int32, and for
        those that are outside of a codebook."""
        if codes_BKT.dtype not in (torch.int32, torch.int64):
            raise VoxcloneError(
                f"Codes are whole numbers (int64 or int32), and these are {codes_BKT.dtype}."
            )
        books = (
            ("semantic code", codes_BKT[:, :1], self.semantic_codebook.cluster_usage.shape[0]),
            ("acoustic level", codes_BKT[:, 1:], self.levels),
        )
        for name, part_BKT, size in books if codes_BKT.numel() else ():
            least, most = (int(value) for value in part_BKT.aminmax())
            if least < 0 or most >= size:
                found = least if least < 0 else most
                raise VoxcloneError(
                    f"There is no {name} {found}: the codebook has 0 to {size - 1}."
                )

    def decode(self, codes_BKT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Codes [B, K, T] -> what the decoder reads [B, D, T]: code vectors, then values."""
        semantic_BDT = self.semantic_codebook.decode(codes_BKT[:, 0], dtype)
        return torch.cat([semantic_BDT, self.values_of(codes_BKT[:, 1:], dtype)], dim=1)

    def train_forward(
        self,
        latent_BDT: Tensor,
        draws: QuantizationDraws,
        *,
        semantic_share: float = 0.5,
        acoustic_shares: tuple[float, float] = (0.5, 0.25),
    ) -> Quantized:
        """The paper's stochastic quantization (arXiv 2603.25551, 2.1), drawn per item of the batch.

        Semantic: the nearest vector with probability `semantic_share`, else the latent as it is.
        Acoustic: tanh, then rounded with the first probability, dithered by uniform noise of
        magnitude 1/L with the second, else as it is. Gradients pass straight through. The
        commitment is the mean squared distance to the nearest vector over all items.
        """
        semantic_BDT, acoustic_BDT = self.split(latent_BDT)
        with torch.no_grad():
            semantic_codes_BT = self.semantic_codebook.encode(semantic_BDT)
            nearest_BDT = self.semantic_codebook.decode(semantic_codes_BT, latent_BDT.dtype)
        commitment = F.mse_loss(semantic_BDT, nearest_BDT)
        rounded_BDT = semantic_BDT + (nearest_BDT - semantic_BDT).detach()
        semantic_BDT = torch.where(draws.semantic_B11 < semantic_share, rounded_BDT, semantic_BDT)

        value_BDT = torch.tanh(acoustic_BDT)
        levels_BDT = to_levels(value_BDT, self.levels).round()
        snapped_BDT = value_BDT + (self.values_of(levels_BDT.detach()) - value_BDT).detach()
        dithered_BDT = value_BDT + (2 * draws.dither_BDT - 1) / self.levels
        round_share, dither_share = acoustic_shares
        acoustic_BDT = torch.where(
            draws.acoustic_B11 < round_share,
            snapped_BDT,
            torch.where(draws.acoustic_B11 < round_share + dither_share, dithered_BDT, value_BDT),
        )
        codes_BKT = torch.cat([semantic_codes_BT[:, None], levels_BDT.detach().long()], dim=1)
        return Quantized(torch.cat([semantic_BDT, acoustic_BDT], dim=1), codes_BKT, commitment)


def draw_quantization(
    channels: int, frames: int, generators: Sequence[torch.Generator]
) -> QuantizationDraws:
    """Draws for latents of so many acoustic channels and frames, one item for each generator."""
    shapes = (1, 1), (channels, frames), (1, 1)
    return QuantizationDraws(*(uniform(shape, generators) for shape in shapes))


def code_logits(book: SemanticCodebook, latent_BDT: Tensor) -> Tensor:
    """Logits [N, V] of the codes of latents: -|z - e|^2 over an eighth of the book's variance, as
    in `losses.code_losses`."""
    latent_ND = latent_BDT.transpose(1, 2).flatten(0, 1)
    return -book.squared_distances(latent_ND) / (book.spread() / 8)
