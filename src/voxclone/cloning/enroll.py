"""Turn recordings into a voice: reference, codes, embedding, metadata.

Shapes: S samples, K codebooks, T frames, N = T + 1 frames of the embedding, D width.
"""

import hashlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from voxclone.audio.files import Recording
from voxclone.audio.joining import PAUSE_SECONDS, best_alone, prepare_joined
from voxclone.audio.reference import Reference, ReferenceSettings, prepare_reference
from voxclone.audio.segments import Segment
from voxclone.cloning.crops import by_gain, by_similarity, choose_crops
from voxclone.cloning.options import STEPS, EnrollOptions, read_for
from voxclone.cloning.speakers import speaker_consistency
from voxclone.codec.model import Codec
from voxclone.errors import AudioError, printable
from voxclone.io import tensor_hash
from voxclone.models.speaker_encoder import Ge2eEmbedder, clip_similarity
from voxclone.release.encoder_file import codebook_hash, open_codec
from voxclone.release.release import Release, load_table
from voxclone.spec import CONTEXT
from voxclone.tts.adapter_file import read_adapter
from voxclone.voice.embedding import voice_embedding
from voxclone.voice.file import Voice
from voxclone.voice.metadata import Consent, VoiceMetadata

MAX_SECONDS = 30.0
JOINED_SECONDS = 16.0
"""Limit for several recordings, or chosen crops: similarity does not grow beyond
(mlx-voxtral-swift: 0.72 with 16 s and with 24 s)."""
VOICE_SHARE = 0.35
STAGES = ("reference", "codes", "voice")
DEFAULT_OPTIONS = EnrollOptions()

Source = Recording | Path | str
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Enrolled:
    """A voice and the reference that it was made of."""

    voice: Voice
    reference: Reference


def enroll(
    recordings: Source | Sequence[Source],
    release: Release,
    codec: Codec | None = None,
    *,
    name: str,
    consent: Consent,
    options: EnrollOptions = DEFAULT_OPTIONS,
    enrollment_id: str | None = None,
    measured: bool = False,
    adapter: Path | None = None,
    progress: Progress = lambda stage: None,
) -> Enrolled:
    """Encode recordings of one speaker, 1 s or more each, into a voice of `release`.

    Recordings are files, or were read already. `codec` is that of `open_codec` if not given. The
    metadata get `enrollment_id`, and if `measured`, the similarity of the decoded codes to the
    reference. `progress` is called with each of `STAGES` when it begins. `adapter` is the folder of
    one, for a choice of crops by gain. Raises AudioError for a recording that cannot be used and
    ReleaseError if there is no encoder.
    """
    codec = open_codec(release) if codec is None else codec
    codec.require_encoder()
    given = [recordings] if isinstance(recordings, Recording | Path | str) else recordings
    listed = [
        each if isinstance(each, Recording) else read_for(Path(each), options) for each in given
    ]
    progress("reference")
    reference = make_reference(listed, release, codec, options, adapter)
    progress("codes")
    with torch.inference_mode():
        wave_S = torch.from_numpy(reference.wave_S).to(codec.device)
        codes_KT = codec.encode(wave_S[None])[0].cpu()
    progress("voice")
    voice = voice_of(
        codes_KT, reference, listed, release, codec, name=name, consent=consent,
        encoder_hash=codec.encoder_hash(), enrollment_id=enrollment_id, measured=measured,
        adapter_hash=None if adapter is None else read_adapter(adapter).sha256,
    )  # fmt: skip
    return Enrolled(voice, reference)


def voice_of(
    codes_KT: Tensor,
    reference: Reference,
    recordings: Sequence[Recording],
    release: Release,
    codec: Codec,
    *,
    name: str,
    consent: Consent,
    encoder_hash: str,
    enrollment_id: str | None = None,
    measured: bool = False,
    adapter_hash: str | None = None,
) -> Voice:
    """The voice of codes [K, T] of a reference, whatever made the codes."""
    table_VD = load_table(release)
    metadata = VoiceMetadata(
        name=name,
        consent=consent,
        encoder_hash=encoder_hash,
        table_hash=tensor_hash(table_VD),
        codebook_hash=codebook_hash(release),
        enrollment_id=enrollment_id,
        adapter_hash=adapter_hash,
        reference_seconds=len(reference.wave_S) / codec.sampling_rate,
        reference_hash=recordings_hash(recordings),
        preprocessing=printable(reference.report.to_dict()),
        similarity=_similarity(codec, codes_KT, reference) if measured else {},
        tool=f"voxclone {importlib.metadata.version('voxclone')}",
    )
    return Voice(codes_KT, voice_embedding(codes_KT, release, table_VD), metadata)


def recordings_hash(recordings: Sequence[Recording]) -> str:
    """SHA-256 of the contents of recordings, in their order."""
    hashes = [recording.sha256 for recording in recordings]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def reference_settings(
    release: Release, options: EnrollOptions = DEFAULT_OPTIONS, recordings: int = 1
) -> ReferenceSettings:
    """Settings for references of a release by `options`. A reference takes at most about a third
    of the model's context, so that there is room for text and speech."""
    context = min(release.params.lm.max_seq_len, CONTEXT)
    room = VOICE_SHARE * context / release.params.codec.frame_rate
    usual = JOINED_SECONDS if recordings > 1 or options.best_of > 1 else MAX_SECONDS
    off = {STEPS[step]: False for step in options.without if STEPS[step] is not None}
    values = {
        "max_seconds": max(2.0, min(options.seconds or usual, room)),
        "frame_size": release.params.codec.frame_size,
        "level_dbfs": options.level_dbfs,
        "high_pass_hz": options.high_pass_hz,
    }
    return ReferenceSettings.model_validate(values | off)


def make_reference(
    recordings: list[Recording],
    release: Release,
    codec: Codec,
    options: EnrollOptions = DEFAULT_OPTIONS,
    adapter: Path | None = None,
) -> Reference:
    """One reference of all recordings, with its speaker consistency in the report. Raises
    AudioError."""
    settings = reference_settings(release, options, len(recordings))
    joining = len(recordings) > 1 and "join" not in options.without
    segments: list[Segment | None] = [None] * len(recordings)
    choices: list[str] = []
    if options.best_of > 1:
        by_model = options.select_by == "gain"
        score = by_gain(release, codec, adapter) if by_model else by_similarity(codec)
        count = len(recordings) if joining else 1
        share = (settings.max_seconds - PAUSE_SECONDS * (count - 1)) / count
        small = settings.model_copy(update={"max_seconds": share})
        segments, choices = choose_crops(recordings, small, codec, score, options.best_of)
    if joining:
        reference = prepare_joined(recordings, settings, segments)
    elif len(recordings) > 1:
        reference = best_alone(recordings, settings, segments)
    else:
        reference = prepare_reference(recordings[0], settings, segment=segments[0])
    consistency = speaker_consistency(torch.from_numpy(reference.wave_S))
    report = reference.report.with_speaker_consistency(consistency)
    return replace(reference, report=replace(report, actions=(*choices, *report.actions)))


def decode_codes(codes_KT: Tensor, codec: Codec) -> Tensor:
    """Samples [S] of codes [K, T], on the CPU."""
    with torch.inference_mode():
        return codec.decode(codes_KT[None].to(codec.device))[0].float().cpu()


def _similarity(codec: Codec, codes_KT: Tensor, reference: Reference) -> dict[str, float]:
    """Cosine of the decoded codes to the reference, by the name of the speaker encoder."""
    try:
        value = clip_similarity(decode_codes(codes_KT, codec), torch.from_numpy(reference.wave_S))
    except AudioError:
        return {}  # codes that decode to silence
    return {f"{Ge2eEmbedder.name}, decoded codes": round(value, 4)}
