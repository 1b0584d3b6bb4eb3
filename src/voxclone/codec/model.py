"""Encoder, Decoder and the Codec that joins them through the quantizer.

`Encoder.state_dict()` and `Decoder.state_dict()` have the names of the release without the prefix
`audio_tokenizer.`. The encoder may be absent: the release withholds it.

Shapes: B batch, S samples, P samples of a patch, T positions (patches or frames), D width,
K codebooks.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from voxclone.codec.config import CodecConfig
from voxclone.codec.layers import CausalConv1d, CausalConvTranspose1d, Past, Transformer
from voxclone.codec.quantizer import Quantizer
from voxclone.codec.streaming import in_pieces
from voxclone.errors import ReleaseError
from voxclone.io import tensor_hash

PIECE_FRAMES = 250


class Encoder(nn.Module):
    """Waveform [B, S] -> latent [B, D, ceil(S / frame)], acoustic channels before the tanh."""

    gradient_checkpointing = False

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.input_proj = CausalConv1d(
            config.pretransform_patch_size,
            config.dim,
            config.patch_proj_kernel_size,
            weight_norm=config.conv_weight_norm,
        )
        blocks: list[nn.Module] = []
        lengths = config.encoder_transformer_lengths
        for index, (layers, window) in enumerate(zip(lengths, config.encoder_windows, strict=True)):
            blocks.append(Transformer(config, layers, window))
            kernel = config.encoder_convs_kernels[index]
            stride = config.encoder_convs_strides[index]
            last = index == len(lengths) - 1
            if last or kernel != 1 or stride != 1:
                width = config.latent_dim if last else config.dim
                blocks.append(CausalConv1d(config.dim, width, kernel, stride, pad_mode="replicate"))
        self.encoder_blocks = nn.ModuleList(blocks)

    def forward(self, wave_BS: Tensor, past: Past | None = None) -> Tensor:
        patch = self.config.pretransform_patch_size
        padded_BS = nn.functional.pad(wave_BS, (0, -wave_BS.shape[-1] % patch))
        patches_BPT = padded_BS.unflatten(-1, (-1, patch)).transpose(1, 2)
        x_BTD = self.input_proj(patches_BPT, past).transpose(1, 2)
        latent_BTD = _run(self.encoder_blocks, x_BTD, past, again=self.gradient_checkpointing)
        return latent_BTD.transpose(1, 2)


class Decoder(nn.Module):
    """Quantized latent [B, D, T] -> waveform [B, T * frame]."""

    gradient_checkpointing = False

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        lengths = config.decoder_transformer_lengths
        kernels = config.decoder_convs_kernels
        strides = config.decoder_convs_strides
        blocks: list[nn.Module] = [
            CausalConv1d(config.latent_dim, config.dim, kernels[0], pad_mode="replicate")
        ]
        for index, (layers, window) in enumerate(zip(lengths, config.decoder_windows, strict=True)):
            blocks.append(Transformer(config, layers, window))
            after = index + 1
            if after < len(lengths) and (kernels[after] != 1 or strides[after] != 1):
                blocks.append(
                    CausalConvTranspose1d(config.dim, config.dim, kernels[after], strides[after])
                )
        self.decoder_blocks = nn.ModuleList(blocks)
        self.output_proj = CausalConv1d(
            config.dim,
            config.pretransform_patch_size,
            config.patch_proj_kernel_size,
            weight_norm=config.conv_weight_norm,
        )

    def forward(self, latent_BDT: Tensor, past: Past | None = None) -> Tensor:
        again = self.gradient_checkpointing
        x_BTD = _run(self.decoder_blocks, latent_BDT.transpose(1, 2), past, again=again)
        patches_BPT: Tensor = self.output_proj(x_BTD.transpose(1, 2), past)
        return patches_BPT.transpose(1, 2).flatten(1)


class Codec(nn.Module):
    """Speech to codes and back. Rates and counts are properties; nothing outside repeats them."""

    def __init__(self, config: CodecConfig, *, with_encoder: bool = True) -> None:
        super().__init__()
        self.config = config
        self.encoder: Encoder | None = Encoder(config) if with_encoder else None
        self.quantizer = Quantizer(config)
        self.decoder = Decoder(config)

    def encoder_hash(self) -> str:
        """SHA-256 of the encoder's tensors, as a voice file names it. Raises ReleaseError for a
        codec without an encoder."""
        return tensor_hash(*self.require_encoder().state_dict().values())

    @property
    def sampling_rate(self) -> int:
        return self.config.sampling_rate

    @property
    def dtype(self) -> torch.dtype:
        """Of the decoder's weights."""
        return next(self.decoder.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the decoder's weights are."""
        return next(self.decoder.parameters()).device

    @property
    def frame_rate(self) -> float:
        return self.config.frame_rate

    @property
    def frame_size(self) -> int:
        return self.config.frame_size

    @property
    def num_codebooks(self) -> int:
        return self.config.num_codebooks

    def latents(
        self, wave_BS: Tensor, *, dtype: torch.dtype = torch.float32, piece: int = PIECE_FRAMES
    ) -> Tensor:
        """Latent [B, D, T] of equally long waveforms [B, S]; `dtype` is that of weights, arithmetic
        and result (vLLM-Omni's is bf16). Long input is encoded `piece` frames at a time, with the
        same result.
        """
        encoder = _in_dtype(self.require_encoder(), dtype)
        if wave_BS.ndim != 2 or wave_BS.shape[-1] == 0:
            raise ValueError(f"expected a waveform [B, S] with S > 0, got {tuple(wave_BS.shape)}")
        return in_pieces(encoder, wave_BS.to(dtype), piece * self.frame_size)

    def encode(
        self, wave_BS: Tensor, *, dtype: torch.dtype = torch.float32, piece: int = PIECE_FRAMES
    ) -> Tensor:
        """Codes [B, K, ceil(S / frame)] of waveforms [B, S], computed and searched in `dtype`.

        Raises ReleaseError if the encoder is withheld.
        """
        return self.quantizer.encode(self.latents(wave_BS, dtype=dtype, piece=piece))

    def decode(self, codes_BKT: Tensor, *, piece: int = PIECE_FRAMES) -> Tensor:
        """Waveform [B, T * frame] in fp32 of codes [B, K, T] (without the +2).

        Raises VoxcloneError for codes that no codebook has.
        """
        if codes_BKT.ndim != 3 or codes_BKT.shape[1] != self.num_codebooks:
            expected = f"[B, {self.num_codebooks}, T]"
            raise ValueError(f"expected codes {expected}, got {tuple(codes_BKT.shape)}")
        if codes_BKT.numel() == 0:
            samples = codes_BKT.shape[-1] * self.frame_size
            return torch.zeros(codes_BKT.shape[0], samples, device=codes_BKT.device)

        self.quantizer.check_codes(codes_BKT)
        decoder = _in_dtype(self.decoder, torch.float32)

        def decode_piece(codes_BKT: Tensor, past: Past | None) -> Tensor:
            return decoder(self.quantizer.decode(codes_BKT), past)

        return in_pieces(decode_piece, codes_BKT, piece).float()

    def require_encoder(self) -> Encoder:
        """The encoder, or ReleaseError if this codec has none."""
        if self.encoder is None:
            raise ReleaseError(
                "This release has no codec encoder, so a recording cannot be turned into a voice: "
                "train one with `voxclone train encoder`, or name one with `--encoder`."
            )
        return self.encoder


def _run(blocks: nn.ModuleList, x_BTD: Tensor, past: Past | None, *, again: bool) -> Tensor:
    """The blocks, one after another; `again` computes each once more in the backward pass instead
    of keeping what is within it."""
    for block in blocks:
        if again and torch.is_grad_enabled() and past is None:
            x_BTD = checkpoint(_run_block, block, x_BTD, past, use_reentrant=False)
        else:
            x_BTD = _run_block(block, x_BTD, past)
    return x_BTD


def _run_block(block: nn.Module, x_BTD: Tensor, past: Past | None) -> Tensor:
    if isinstance(block, Transformer):
        return block(x_BTD, past)
    # Contiguous: a product with frozen weights would copy them for every item otherwise.
    return block(x_BTD.transpose(1, 2), past).transpose(1, 2).contiguous()


ModuleT = TypeVar("ModuleT", bound=nn.Module)


def _in_dtype(module: ModuleT, dtype: torch.dtype) -> ModuleT:
    """The module itself if it has this dtype already, else a copy in it."""
    if next(module.parameters()).dtype == dtype:
        return module
    return copy.deepcopy(module).to(dtype)
