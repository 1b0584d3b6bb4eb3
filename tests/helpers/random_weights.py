"""Codec tensors drawn by name, the rule of data/README.md: any config can be filled alike."""

import hashlib
import math

import numpy as np
import torch

from voxclone.codec.config import CodecConfig
from voxclone.codec.model import Codec


def draw(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The tensor of a name: those of the codec without the prefix `audio_tokenizer.`, those of the
    codebook by their last part, and `audio_token_embedding.embeddings.weight` for the table."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    normal = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)
    value = torch.from_numpy(normal)
    if name.endswith("cluster_usage"):
        value = (5 + 2 * value).abs()
        value[3] = 0
        return value
    if name.endswith("embedding_sum"):
        return 5 * value
    if name.endswith(("attention_scale", "ffn_scale")):
        return 0.3 + 0.05 * value
    if name.endswith("norm.weight"):
        return 1 + 0.1 * value
    if name.endswith("original0"):
        return (1 + 0.1 * value).abs()
    if name == "audio_token_embedding.embeddings.weight":
        return 0.05 * value
    return value / math.sqrt(math.prod(shape[1:]))


def drawn_codec(config: CodecConfig) -> Codec:
    """A codec whose every tensor is drawn by its name."""
    codec = Codec(config)
    for part in (codec.encoder, codec.decoder, codec.quantizer):
        assert part is not None
        state = part.state_dict()
        part.load_state_dict(
            {k: draw(k.split("codebook.")[-1], tuple(v.shape)) for k, v in state.items()}
        )
    return codec.eval()
