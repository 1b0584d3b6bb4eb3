"""The voice embedding of codes: what the language model reads in the place of [AUDIO] tokens.

Each frame is the sum of one table row from each codebook, in the +2-shifted code space. After the
frames of the recording comes one END frame, (1, 0, ..., 0) in that space (vLLM-Omni
`encode_waveforms`).

Shapes: K codebooks, T frames, N = T + 1 frames of an embedding, D width, V table rows.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from voxclone.release.release import Release, load_table
from voxclone.release.tensors import codebook_offsets
from voxclone.spec import EMPTY_AUDIO, END_AUDIO, SHIFT


def embed_codes(codes_KT: Tensor, table_VD: Tensor, offsets: Sequence[int]) -> Tensor:
    """Embedding [T + 1, D] of codes [K, T], in the table's dtype: summed in fp32, rounded once."""
    end_K1 = torch.full((codes_KT.shape[0], 1), EMPTY_AUDIO, device=codes_KT.device)
    end_K1[0] = END_AUDIO
    shifted_KN = torch.cat([codes_KT.long() + SHIFT, end_K1], dim=1)
    index_KN = shifted_KN + torch.tensor(offsets, device=codes_KT.device)[:, None]
    return table_VD[index_KN].float().sum(dim=0).to(table_VD.dtype)


def voice_embedding(codes_KT: Tensor, release: Release, table_VD: Tensor | None = None) -> Tensor:
    """Embedding [T + 1, D] of codes [K, T] for a release, in bf16."""
    table_VD = load_table(release) if table_VD is None else table_VD
    return embed_codes(codes_KT, table_VD, codebook_offsets(release.params)).to(torch.bfloat16)


def end_frame(release: Release) -> Tensor:
    """The END frame [D] in bf16, with which every voice of a release ends."""
    no_codes_K0 = torch.zeros(release.params.audio.num_codebooks, 0, dtype=torch.long)
    return voice_embedding(no_codes_K0, release)[0]
