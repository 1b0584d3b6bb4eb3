"""The language model: prompt and codes in, hidden states out, through transformers' Mistral.

The checkpoint is in Mistral's own layout, whose rotary embedding turns adjacent pairs (2d, 2d + 1);
transformers turns (d, d + half). The rows of wq and wk are permuted accordingly when weights come
in and back when they go out. Embedding tables stay as they are.

Shapes: B batch, L prompt positions, N frames of a voice embedding, K codebooks, D width, V table
rows.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxclone.errors import MissingExtraError
from voxclone.release.params import Params
from voxclone.release.tensors import codebook_offsets, table_rows
from voxclone.spec import TABLE, TEXT_TABLE

LAYER_NAMES = {
    "attention.wq.weight": "self_attn.q_proj.weight",
    "attention.wk.weight": "self_attn.k_proj.weight",
    "attention.wv.weight": "self_attn.v_proj.weight",
    "attention.wo.weight": "self_attn.o_proj.weight",
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight",
    "feed_forward.w2.weight": "mlp.down_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight",
}


class Backbone(nn.Module):
    """Both embedding tables and the transformer. `forward` gives states after the final norm."""

    offsets_K: Tensor

    def __init__(self, params: Params, *, attention: str = "sdpa") -> None:
        super().__init__()
        try:
            from transformers import MistralConfig, MistralModel
        except ImportError:
            raise MissingExtraError("transformers", "speech", "Speaking") from None
        lm = params.lm
        self.params = params
        self.text_table = nn.Embedding(lm.vocab_size, lm.dim)
        self.audio_table = nn.Embedding(table_rows(params), lm.dim)
        config = MistralConfig(
            vocab_size=1,  # its own table is not used: prompts come in as embeddings
            hidden_size=lm.dim,
            intermediate_size=lm.hidden_dim,
            num_hidden_layers=lm.n_layers,
            num_attention_heads=lm.n_heads,
            num_key_value_heads=lm.n_kv_heads,
            head_dim=lm.head_dim,
            rms_norm_eps=lm.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": lm.rope_theta},
            max_position_embeddings=lm.max_seq_len,
            sliding_window=None,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )
        config._attn_implementation = attention
        self.model = MistralModel(config)
        del self.model.embed_tokens
        offsets = torch.tensor(codebook_offsets(params))
        self.register_buffer("offsets_K", offsets, persistent=False)
        # What an adapter puts here (`tts.adapter`), on the frames of voices and on the table.
        self.voice_residual: nn.Module | None = None
        self.table_delta: nn.Module | None = None

    def restore_buffers(self, device: str | torch.device) -> None:
        """Compute the buffers that no file has (offsets, rotary frequencies), after building on the
        meta device."""
        self.offsets_K = torch.tensor(codebook_offsets(self.params), device=device)
        rotary = type(self.model.rotary_emb)(config=self.model.config)
        self.model.rotary_emb = rotary.to(device)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.norm.weight.dtype  # a table may be stored in another
        return dtype

    @property
    def table_VD(self) -> Tensor:
        """The embedding table of codes, with what an adapter adds to it."""
        stored_VD: Tensor = self.audio_table.weight
        return stored_VD if self.table_delta is None else self.table_delta(stored_VD)

    def embed_codes(self, shifted_BK: Tensor) -> Tensor:
        """Sum of table rows [B, D] for frames of codes in the +2-shifted space [B, K]. The sum is
        taken in fp32 and rounded once, as torch sums bf16."""
        index_BK, table_VD = shifted_BK + self.offsets_K, self.table_VD
        if table_VD.dtype == torch.float32:  # in training: the rows themselves are never kept
            bags = F.embedding_bag(index_BK.flatten(0, -2), table_VD, mode="sum")
            return bags.view(*index_BK.shape[:-1], -1).to(self.dtype)
        rows_BKD = F.embedding(index_BK, table_VD)  # a bag of bf16 would round every addition
        return rows_BKD.float().sum(dim=-2).to(self.dtype)

    def embed_prompt(self, ids_L: Tensor, voice_ND: Tensor) -> Tensor:
        """Prompt embeddings [1, L, D], with the voice embedding at the positions of [AUDIO]."""
        is_audio_L = ids_L == self.params.audio.audio_token_id
        if int(is_audio_L.sum()) != len(voice_ND):
            raise ValueError(f"{int(is_audio_L.sum())} positions for {len(voice_ND)} voice frames")
        embedded_LD = self.text_table(ids_L).to(self.dtype)
        if self.voice_residual is not None:
            voice_ND = self.voice_residual(voice_ND.to(embedded_LD.dtype))
        return embedded_LD.index_put((is_audio_L,), voice_ND.to(embedded_LD.dtype))[None]

    def forward(self, embedded_BLD: Tensor, cache: Any = None, **options: Any) -> Tensor:
        """Hidden states [B, L, D]; `cache` is a transformers Cache that is read and extended."""
        output = self.model(
            inputs_embeds=embedded_BLD,
            past_key_values=cache,
            use_cache=cache is not None,
            **options,
        )
        hidden_BLD: Tensor = output.last_hidden_state
        return hidden_BLD


def to_transformers(name: str, tensor: Tensor, params: Params) -> tuple[str, Tensor]:
    """Release name and tensor -> name in `Backbone` and tensor in half-split rotary order."""
    if name == TEXT_TABLE:
        return "text_table.weight", tensor
    if name == TABLE:
        return "audio_table.weight", tensor
    if name == "norm.weight":
        return "model.norm.weight", tensor
    _, layer, inner = name.split(".", 2)
    if inner.endswith(("wq.weight", "wk.weight")):
        tensor = _split_pairs(tensor, params.lm.head_dim)
    return f"model.layers.{layer}.{LAYER_NAMES[inner]}", tensor


def from_transformers(name: str, tensor: Tensor, params: Params) -> tuple[str, Tensor]:
    """The inverse of `to_transformers`."""
    if name == "text_table.weight":
        return TEXT_TABLE, tensor
    if name == "audio_table.weight":
        return TABLE, tensor
    if name == "model.norm.weight":
        return "norm.weight", tensor
    inverse = {theirs: ours for ours, theirs in LAYER_NAMES.items()}
    layer, inner = name.removeprefix("model.layers.").split(".", 1)
    if inner.endswith(("q_proj.weight", "k_proj.weight")):
        tensor = _join_pairs(tensor, params.lm.head_dim)
    return f"layers.{layer}.{inverse[inner]}", tensor


def backbone_names(params: Params) -> list[str]:
    """Names in the release of what `Backbone` holds."""
    layers = [
        f"layers.{layer}.{name}" for layer in range(params.lm.n_layers) for name in LAYER_NAMES
    ]
    return [TEXT_TABLE, TABLE, *layers, "norm.weight"]


def _split_pairs(weight: Tensor, head_dim: int) -> Tensor:
    """Rows (0, 1, 2, 3, ...) of each head -> (0, 2, ..., 1, 3, ...)."""
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


def _join_pairs(weight: Tensor, head_dim: int) -> Tensor:
    """The inverse of `_split_pairs`."""
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)
