"""Hyper-parameters of the codec, under the names of `params.json` -> `audio_tokenizer_args`."""

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from voxclone.config import Settings
from voxclone.records import parse_record
from voxclone.spec import SAMPLING_RATE

Size = Annotated[int, Field(ge=1, strict=True)]


class CodecConfig(Settings):
    """One codec. The three `encoder_*` keys are absent from the release (the encoder is withheld);
    their defaults are those of vLLM-Omni's `AudioTokenizerArgs`, which agree with the paper."""

    channels: Literal[1] = 1
    sampling_rate: Size = SAMPLING_RATE
    pretransform_patch_size: Size = 240
    patch_proj_kernel_size: Size = 7
    semantic_codebook_size: Size = 8192
    semantic_dim: Size = 256
    acoustic_codebook_size: Annotated[int, Field(ge=2, strict=True)] = 21
    acoustic_dim: Size = 36
    conv_weight_norm: bool = True
    causal: Literal[True] = True
    attn_sliding_window_size: Size = 16
    half_attn_window_upon_downsampling: bool = True
    dim: Size = 1024
    hidden_dim: Size = 4096
    head_dim: Size = 128
    n_heads: Size = 8
    n_kv_heads: Size = 8
    qk_norm: bool = True
    qk_norm_eps: float = 1e-6
    use_biases: Literal[False] = False
    norm_eps: float = 1e-2
    layer_scale: bool = True
    layer_scale_init: float | None = None
    encoder_transformer_lengths_str: str = "2,2,2,2"
    encoder_convs_kernels_str: str = "4,4,4,3"
    encoder_convs_strides_str: str = "2,2,2,1"
    decoder_transformer_lengths_str: str = "2,2,2,2"
    decoder_convs_kernels_str: str = "3,4,4,4"
    decoder_convs_strides_str: str = "1,2,2,2"

    @field_validator(
        "encoder_transformer_lengths_str",
        "encoder_convs_kernels_str",
        "encoder_convs_strides_str",
        "decoder_transformer_lengths_str",
        "decoder_convs_kernels_str",
        "decoder_convs_strides_str",
    )
    @classmethod
    def _is_list_of_integers(cls, value: str) -> str:
        if any(number < 1 for number in _integers(value)):
            raise ValueError("every number in the list must be at least 1")
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> "CodecConfig":
        if self.n_heads % self.n_kv_heads:
            raise ValueError("n_heads must be a multiple of n_kv_heads")
        for side in ("encoder", "decoder"):
            names = (
                f"{side}_transformer_lengths",
                f"{side}_convs_kernels",
                f"{side}_convs_strides",
            )
            if len({len(getattr(self, name)) for name in names}) != 1:
                raise ValueError(f"the three {side}_*_str lists must have the same length")
            for kernel, stride in zip(*(getattr(self, name) for name in names[1:]), strict=True):
                if kernel < stride:
                    raise ValueError(
                        f"a {side} kernel of {kernel} is shorter than its stride {stride}"
                    )
        if self.decoder_convs_strides[0] != 1:
            raise ValueError("decoder_convs_strides_str must start with 1: it is no transposed one")
        if _product(self.encoder_convs_strides) != _product(self.decoder_convs_strides):
            raise ValueError("encoder and decoder strides must have the same product")
        if self.half_attn_window_upon_downsampling:
            if any(
                s not in (1, 2) for s in self.encoder_convs_strides + self.decoder_convs_strides
            ):
                raise ValueError("halving windows needs strides of 1 or 2")
            if self.attn_sliding_window_size >> self.encoder_convs_strides.count(2) < 2:
                raise ValueError("attn_sliding_window_size is too short to be halved that often")
        return self

    @classmethod
    def from_params(cls, values: dict[str, Any]) -> "CodecConfig":
        """Read the mapping `audio_tokenizer_args`; keys the codec does not use are left aside."""
        known = {key: value for key, value in values.items() if key in cls.model_fields}
        return parse_record(cls, known, "params.json, audio_tokenizer_args")

    @cached_property
    def encoder_transformer_lengths(self) -> tuple[int, ...]:
        return _integers(self.encoder_transformer_lengths_str)

    @cached_property
    def encoder_convs_kernels(self) -> tuple[int, ...]:
        return _integers(self.encoder_convs_kernels_str)

    @cached_property
    def encoder_convs_strides(self) -> tuple[int, ...]:
        return _integers(self.encoder_convs_strides_str)

    @cached_property
    def decoder_transformer_lengths(self) -> tuple[int, ...]:
        return _integers(self.decoder_transformer_lengths_str)

    @cached_property
    def decoder_convs_kernels(self) -> tuple[int, ...]:
        return _integers(self.decoder_convs_kernels_str)

    @cached_property
    def decoder_convs_strides(self) -> tuple[int, ...]:
        return _integers(self.decoder_convs_strides_str)

    @property
    def latent_dim(self) -> int:
        return self.semantic_dim + self.acoustic_dim

    @property
    def num_codebooks(self) -> int:
        return 1 + self.acoustic_dim

    @property
    def frame_size(self) -> int:
        """Samples in a frame (1920 in the release)."""
        return self.pretransform_patch_size * _product(self.encoder_convs_strides)

    @property
    def frame_rate(self) -> float:
        """Frames a second (12.5 in the release)."""
        return self.sampling_rate / self.frame_size

    @property
    def encoder_windows(self) -> tuple[int, ...]:
        """Attention window of each transformer of the encoder: 16, 8, 4, 2 in the release."""
        return self._windows()[0]

    @property
    def decoder_windows(self) -> tuple[int, ...]:
        """Attention window of each transformer of the decoder: 2, 4, 8, 16 in the release."""
        return self._windows()[1]

    @property
    def encoder_history(self) -> int:
        """Whole frames before a frame that the encoder looks at (21 in the release: 20.5)."""
        reach = 0
        stages = zip(
            self.encoder_transformer_lengths,
            self.encoder_windows,
            self.encoder_convs_kernels,
            self.encoder_convs_strides,
            strict=True,
        )
        for layers, window, kernel, stride in reversed(list(stages)):
            reach = reach * stride + (kernel - stride) + layers * window
        patches = reach + self.patch_proj_kernel_size - 1
        return -(-patches // _product(self.encoder_convs_strides))

    @property
    def decoder_history(self) -> int:
        """Whole frames before a sample's own that the decoder looks at (21 in the release)."""
        reach = self.patch_proj_kernel_size - 1
        stages = zip(
            self.decoder_transformer_lengths,
            self.decoder_windows,
            self.decoder_convs_kernels,
            self.decoder_convs_strides,
            strict=True,
        )
        for layers, window, kernel, stride in reversed(list(stages)[1:]):
            reach = -(-(reach + layers * window) // stride) + -(-kernel // stride) - 1
        first = self.decoder_transformer_lengths[0] * self.decoder_windows[0]
        return reach + first + self.decoder_convs_kernels[0] - 1

    def _windows(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        window = self.attn_sliding_window_size
        halve = self.half_attn_window_upon_downsampling
        encoder = []
        for stride in self.encoder_convs_strides:
            encoder.append(window)
            window = window // 2 if halve and stride > 1 else window
        decoder = []
        for stride in self.decoder_convs_strides:
            window = window * 2 if halve and stride > 1 else window
            decoder.append(window)
        return tuple(encoder), tuple(decoder)


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _product(numbers: tuple[int, ...]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result
