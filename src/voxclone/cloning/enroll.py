"""Turn a recording into a voice: reference, codes, rows, facts.

Shapes: S samples, K code books, T frames, N rows, D width.
"""

import importlib.metadata
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.audio.files import Recording
from voxclone.audio.reference import Reference, ReferenceSettings, prepare_reference
from voxclone.codec.model import Codec
from voxclone.release.archive import Release, load_table
from voxclone.release.tensors import codebook_offsets
from voxclone.speech.speaker import CONTEXT
from voxclone.voice.file import Consent, Voice, VoiceFacts, tensor_hash
from voxclone.voice.rows import voice_rows

MAX_SECONDS = 30.0
VOICE_SHARE = 0.35


@dataclass(frozen=True)
class Enrolled:
    """A voice and what was kept of the recording."""

    voice: Voice
    reference: Reference


def enroll(
    recording: Recording,
    release: Release,
    codec: Codec,
    *,
    name: str,
    consent: Consent,
    settings: ReferenceSettings | None = None,
) -> Enrolled:
    """Encode a recording of 1 s or more into a voice of `release`.

    Raises AudioError for a recording that cannot be used and ReleaseError if `codec` has no
    encoder.
    """
    encoder = codec.require_encoder()
    reference = prepare_reference(recording, settings or reference_settings(release))
    with torch.inference_mode():
        codes_KT = codec.encode(torch.from_numpy(reference.wave_S)[None])[0]
    table_VD = load_table(release)
    facts = VoiceFacts(
        name=name,
        consent=consent,
        encoder_hash=tensor_hash(*encoder.state_dict().values()),
        table_hash=tensor_hash(table_VD),
        reference_seconds=len(reference.wave_S) / codec.sampling_rate,
        reference_hash=recording.sha256,
        preprocessing=reference.report.to_dict(),
        tool=f"voxclone {importlib.metadata.version('voxclone')}",
    )
    return Enrolled(Voice(codes_KT, rows_of(codes_KT, release, table_VD), facts), reference)


def reference_settings(release: Release) -> ReferenceSettings:
    """Settings for references of a release: at most 30 s, and at most about a third of the model's
    context, so that there is room for text and speech."""
    context = min(release.params.lm.max_seq_len, CONTEXT)
    room = VOICE_SHARE * context / release.params.codec.frame_rate
    return ReferenceSettings(
        max_seconds=max(2.0, min(MAX_SECONDS, room)), frame_size=release.params.codec.frame_size
    )


def rows_of(codes_KT: Tensor, release: Release, table_VD: Tensor | None = None) -> Tensor:
    """Rows [T + 1, D] of codes for a release, in bf16."""
    table_VD = load_table(release) if table_VD is None else table_VD
    return voice_rows(codes_KT, table_VD, codebook_offsets(release.params)).to(torch.bfloat16)
