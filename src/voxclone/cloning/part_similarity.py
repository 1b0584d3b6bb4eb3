"""How similar the parts of generated speech are to the voice that was asked for.

Shapes: S samples, N frames of an embedding, K codebooks, T frames.
"""

import torch
from torch import Tensor

from voxclone.cloning.enroll import decode_codes
from voxclone.codec.model import Codec
from voxclone.errors import AudioError
from voxclone.models.speaker_encoder import clip_embedding
from voxclone.release.release import Release, load_table
from voxclone.release.tensors import codebook_offsets, codebook_sizes
from voxclone.tts.speech import Speech
from voxclone.voice.presets import invert_embedding
from voxclone.voice.resolve import ResolvedVoice

ROUNDS = 4  # of the search for a preset's codes
MIN_SECONDS = 1.0  # of a part; the embedding of less is poor


def part_similarities(
    speech: Speech, voice: ResolvedVoice, release: Release, codec: Codec
) -> list[float | None]:
    """The cosine of each part to the decoded codes of the voice (GE2E); None for a part under 1 s,
    and for silence."""
    try:
        target_E = clip_embedding(_decoded(voice, release, codec))
    except AudioError:
        return [None] * len(speech.parts)
    values: list[float | None] = []
    for part in speech.parts:
        try:
            if part.silent or len(part.wave_S) < MIN_SECONDS * speech.sampling_rate:
                raise AudioError("The part is too short.")
            values.append(round(float(clip_embedding(part.wave_S) @ target_E), 4))
        except AudioError:
            values.append(None)
    return values


@torch.inference_mode()
def _decoded(voice: ResolvedVoice, release: Release, codec: Codec) -> Tensor:
    """The sound [S] of a voice: of the codes in its file, or of those that a preset is made of."""
    if voice.source is not None:
        codes_KT = voice.source.codes_KT
    else:
        codes_KT = invert_embedding(
            voice.embedding_ND, load_table(release), codebook_offsets(release.params),
            codebook_sizes(release.params), rounds=ROUNDS,
        ).codes_KT  # fmt: skip
    return decode_codes(codes_KT, codec)
