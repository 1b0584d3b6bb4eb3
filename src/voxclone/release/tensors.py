"""Names and shapes of the tensors of a release, by its hyper-parameters, and a check against them.

The rules hold for every size. Names of the codec are those in the state dicts of `Encoder`,
`Decoder` and `Quantizer`, in the same order, under `audio_tokenizer.` (a test compares them). They
stand here too, so that a release can be opened without torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

from voxclone.codec.config import CodecConfig
from voxclone.errors import ReleaseError
from voxclone.release.params import AcousticConfig, LanguageModelConfig, Params
from voxclone.release.safetensors import FLOATS, TensorInfo
from voxclone.spec import CODEC, PAD_ROWS, SHIFT, TABLE, TEXT_TABLE

Shapes = dict[str, tuple[int, ...]]

SHOWN = 5

ENCODER_PREFIXES = (f"{CODEC}input_proj.", f"{CODEC}encoder_blocks.")


def parameter_count(params: Params) -> int:
    """How many parameters a release without its encoder has."""
    return sum(math.prod(shape) for shape in expected_tensors(params).values())


def expected_tensors(params: Params) -> Shapes:
    """Name -> shape of every tensor of a release without its encoder (386 in the real one)."""
    lm, audio, acoustic = params.lm, params.audio, params.audio.acoustic
    head = "acoustic_transformer."
    return {
        **_layers("layers.", lm, lm.n_layers),
        "norm.weight": (lm.dim,),
        **({} if lm.tied_embeddings else {"output.weight": (lm.vocab_size, lm.dim)}),
        TEXT_TABLE: (lm.vocab_size, lm.dim),
        TABLE: (table_rows(params), lm.dim),
        **_layers(f"{head}layers.", acoustic, acoustic.n_layers),
        f"{head}input_projection.weight": (acoustic.dim, audio.n_acoustic_codebook),
        f"{head}time_projection.weight": (acoustic.dim, acoustic.dim),
        f"{head}llm_projection.weight": (acoustic.dim, acoustic.input_dim),
        f"{head}semantic_codebook_output.weight": (semantic_rows(params), acoustic.dim),
        f"{head}acoustic_codebook_output.weight": (audio.n_acoustic_codebook, acoustic.dim),
        f"{head}norm.weight": (acoustic.dim,),
        **_prefixed(_decoder(params.codec)),
        **_prefixed(_quantizer(params.codec)),
    }


def encoder_tensors(params: Params) -> Shapes:
    """Name -> shape of every tensor of the withheld encoder (114 in the real release), in the order
    of the modules."""
    return _prefixed(_encoder(params.codec))


def is_encoder(name: str) -> bool:
    """Whether a tensor of this name belongs to the codec's encoder."""
    return name.startswith(ENCODER_PREFIXES)


def codebook_sizes(params: Params) -> list[int]:
    """Codes of every codebook, without the special ones: 8192, 21, 21, ... in the release."""
    audio = params.audio
    return [audio.semantic_codebook_size] + [
        audio.acoustic_codebook_size
    ] * audio.n_acoustic_codebook


def codebook_offsets(params: Params) -> list[int]:
    """First row of every codebook in the embedding table: 0, 8194, 8217, ... in the release."""
    return [0, *accumulate(size + SHIFT for size in codebook_sizes(params))][:-1]


def table_rows(params: Params) -> int:
    """Rows of the embedding table: those of all codebooks, padded once (9088 in the release)."""
    return _padded(sum(size + SHIFT for size in codebook_sizes(params)))


def semantic_rows(params: Params) -> int:
    """Outputs of the semantic head, padding included (8320 in the release)."""
    return _padded(params.audio.semantic_codebook_size + SHIFT)


@dataclass(frozen=True)
class Misshapen:
    """A tensor whose shape is not the one that params.json asks for."""

    name: str
    expected: tuple[int, ...]
    found: tuple[int, ...]


@dataclass(frozen=True)
class ManifestReport:
    """Tensors of a release against its hyper-parameters.

    `encoder` is withheld (no tensor of it), complete (all of them, well shaped) or partial; only
    when it is partial do its tensors count as missing. `mistyped` are those that hold no
    floating-point numbers.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[Misshapen, ...]
    mistyped: tuple[str, ...]
    encoder: Literal["withheld", "partial", "complete"]

    def problems(self, prefix: str | tuple[str, ...] = "") -> list[str]:
        """A clause for each problem of a tensor whose name starts with (one of) `prefix`."""
        clauses = [f"{name} is missing" for name in self.missing]
        clauses += [
            f"{wrong.name} is {list(wrong.found)} instead of {list(wrong.expected)}"
            for wrong in self.misshapen
        ]
        clauses += [f"{name} holds no floating-point numbers" for name in self.mistyped]
        clauses += [f"{name} is not part of a release" for name in self.unexpected]
        return [clause for clause in clauses if clause.startswith(prefix)]

    def summary(self, prefix: str | tuple[str, ...] = "") -> str:
        """The first of these problems, and how many more there are; "" if there are none."""
        clauses = self.problems(prefix)
        more = f" and {len(clauses) - SHOWN} more" if len(clauses) > SHOWN else ""
        return "; ".join(clauses[:SHOWN]) + more


def check_manifest(params: Params, found: Mapping[str, TensorInfo]) -> ManifestReport:
    """Compare the tensors of some files (`TensorFiles.tensors`, or those of one header) with what
    `params` asks for."""
    release, encoder = expected_tensors(params), encoder_tensors(params)
    some_encoder = any(is_encoder(name) for name in found)
    wanted = release | encoder if some_encoder else release
    missing = tuple(name for name in wanted if name not in found)
    misshapen = tuple(
        Misshapen(name, shape, found[name].shape)
        for name, shape in wanted.items()
        if name in found and found[name].shape != shape
    )
    mistyped = tuple(name for name in wanted if name in found and found[name].dtype not in FLOATS)
    wrong = {*missing, *mistyped, *(tensor.name for tensor in misshapen)}
    state: Literal["partial", "complete"] = (
        "partial" if any(name in wrong for name in encoder) else "complete"
    )
    return ManifestReport(
        missing=missing,
        unexpected=tuple(name for name in found if name not in wanted),
        misshapen=misshapen,
        mistyped=mistyped,
        encoder=state if some_encoder else "withheld",
    )


def require_complete(
    report: ManifestReport, where: Path, prefix: str | tuple[str, ...] = ""
) -> None:
    """Raise ReleaseError, with the first few problems, if any tensor whose name starts with
    (one of) `prefix` is missing, misshapen, mistyped or unknown."""
    if problems := report.summary(prefix):
        raise ReleaseError(
            f"The tensors in {where} are not those that params.json describes: {problems}. Fetch "
            "the release again."
        )


def _padded(rows: int) -> int:
    return -(-rows // PAD_ROWS) * PAD_ROWS


def _prefixed(shapes: Shapes) -> Shapes:
    return {CODEC + name: shape for name, shape in shapes.items()}


def _layers(
    prefix: str, config: LanguageModelConfig | AcousticConfig | CodecConfig, count: int
) -> Shapes:
    width, queries = config.dim, config.n_heads * config.head_dim
    keys = config.n_kv_heads * config.head_dim
    codec = config if isinstance(config, CodecConfig) else None
    layer: Shapes = {}
    if codec and codec.layer_scale:
        layer |= {"attention_scale": (width,), "ffn_scale": (width,)}
    layer |= {
        "attention.wq.weight": (queries, width),
        "attention.wk.weight": (keys, width),
        "attention.wv.weight": (keys, width),
        "attention.wo.weight": (width, queries),
    }
    if codec and codec.qk_norm:
        layer |= {"attention.q_norm.weight": (queries,), "attention.k_norm.weight": (keys,)}
    layer |= {
        "feed_forward.w1.weight": (config.hidden_dim, width),
        "feed_forward.w2.weight": (width, config.hidden_dim),
        "feed_forward.w3.weight": (config.hidden_dim, width),
        "attention_norm.weight": (width,),
        "ffn_norm.weight": (width,),
    }
    return {f"{prefix}{i}.{name}": shape for i in range(count) for name, shape in layer.items()}


def _conv(prefix: str, shape: tuple[int, int, int], *, weight_norm: bool = True) -> Shapes:
    if not weight_norm:
        return {f"{prefix}.conv.weight": shape}
    norm = f"{prefix}.conv.parametrizations.weight"
    return {f"{norm}.original0": (shape[0], 1, 1), f"{norm}.original1": shape}


def _encoder(config: CodecConfig) -> Shapes:
    dim, patch, kernel = config.dim, config.pretransform_patch_size, config.patch_proj_kernel_size
    norm = config.conv_weight_norm
    shapes = _conv("input_proj", (dim, patch, kernel), weight_norm=norm)
    kernels, strides = config.encoder_convs_kernels, config.encoder_convs_strides
    block = 0
    for index, layers in enumerate(config.encoder_transformer_lengths):
        shapes |= _layers(f"encoder_blocks.{block}.layers.", config, layers)
        block += 1
        last = index == len(kernels) - 1
        if last or kernels[index] != 1 or strides[index] != 1:
            width = config.latent_dim if last else dim
            shapes |= _conv(f"encoder_blocks.{block}", (width, dim, kernels[index]))
            block += 1
    return shapes


def _decoder(config: CodecConfig) -> Shapes:
    dim, patch, kernel = config.dim, config.pretransform_patch_size, config.patch_proj_kernel_size
    kernels, strides = config.decoder_convs_kernels, config.decoder_convs_strides
    shapes = _conv("decoder_blocks.0", (dim, config.latent_dim, kernels[0]))
    block = 1
    for index, layers in enumerate(config.decoder_transformer_lengths):
        shapes |= _layers(f"decoder_blocks.{block}.layers.", config, layers)
        block += 1
        after = index + 1
        if after < len(kernels) and (kernels[after] != 1 or strides[after] != 1):
            shapes |= _conv(f"decoder_blocks.{block}", (dim, dim, kernels[after]))
            block += 1
    norm = config.conv_weight_norm
    return shapes | _conv("output_proj", (patch, dim, kernel), weight_norm=norm)


def _quantizer(config: CodecConfig) -> Shapes:
    book = "quantizer.semantic_codebook."
    size = config.semantic_codebook_size
    return {f"{book}cluster_usage": (size,), f"{book}embedding_sum": (size, config.semantic_dim)}
