"""Turn recordings into a voice: reference, codes, rows, facts.

Shapes: S samples, K code books, T frames, N rows, D width.
"""

import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from voxclone.audio.files import Recording
from voxclone.audio.joining import PAUSE_SECONDS, best_alone, prepare_joined
from voxclone.audio.loudness import normalize_loudness
from voxclone.audio.reference import Reference, ReferenceSettings, prepare_reference
from voxclone.audio.segments import Segment
from voxclone.cloning.crops import by_gain, by_likeness, choose_crops
from voxclone.cloning.options import STEPS, EnrolOptions
from voxclone.cloning.speakers import unity
from voxclone.codec.model import Codec
from voxclone.errors import AudioError
from voxclone.io import tensor_hash
from voxclone.models.speaker_encoder import Ge2eEmbedder, speaker_similarity
from voxclone.release.encoder_file import book_hash
from voxclone.release.release import Release, load_table
from voxclone.spec import CONTEXT
from voxclone.voice.embedding import rows_of
from voxclone.voice.facts import plain
from voxclone.voice.file import Consent, Voice, VoiceFacts

MAX_SECONDS = 30.0
JOINED_SECONDS = 16.0
"""Of several recordings, or of crops to choose from: likeness does not grow beyond
(mlx-voxtral-swift: 0.72 with 16 s and with 24 s)."""
VOICE_SHARE = 0.35
DEFAULT_OPTIONS = EnrolOptions()


@dataclass(frozen=True)
class Enrolled:
    """A voice and what was kept of the recordings."""

    voice: Voice
    reference: Reference


def enroll(
    recordings: Recording | Sequence[Recording],
    release: Release,
    codec: Codec,
    *,
    name: str,
    consent: Consent,
    settings: ReferenceSettings | None = None,
    options: EnrolOptions = DEFAULT_OPTIONS,
    identity: str | None = None,
    measured: bool = False,
) -> Enrolled:
    """Encode recordings of one speaker, 1 s or more each, into a voice of `release`.

    `settings` of the reference stand before those of `options`. `identity` goes into the facts, and
    where `measured`, the likeness of the decoded codes to the reference too. Raises AudioError for
    a recording that cannot be used and ReleaseError if `codec` has no encoder.
    """
    encoder = codec.require_encoder()
    listed = [recordings] if isinstance(recordings, Recording) else list(recordings)
    reference = make_reference(listed, release, codec, settings, options)
    with torch.inference_mode():
        codes_KT = codec.encode(torch.from_numpy(reference.wave_S)[None])[0]
    voice = voice_of(
        codes_KT, reference, listed, release, codec, name=name, consent=consent,
        encoder_hash=tensor_hash(*encoder.state_dict().values()), identity=identity,
        measured=measured,
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
    identity: str | None = None,
    measured: bool = False,
) -> Voice:
    """The voice of codes [K, T] that were made of a reference, however they were."""
    table_VD = load_table(release)
    facts = VoiceFacts(
        name=name,
        consent=consent,
        encoder_hash=encoder_hash,
        table_hash=tensor_hash(table_VD),
        book_hash=book_hash(release),
        enrolment=identity,
        reference_seconds=len(reference.wave_S) / codec.sampling_rate,
        reference_hash=recordings_hash(recordings),
        preprocessing=plain(reference.report.to_dict()),
        likeness=_likeness(codec, codes_KT, reference) if measured else {},
        tool=f"voxclone {importlib.metadata.version('voxclone')}",
    )
    return Voice(codes_KT, rows_of(codes_KT, release, table_VD), facts)


def recordings_hash(recordings: Sequence[Recording]) -> str:
    """SHA-256 of the contents of recordings, in their order."""
    hashes = [recording.sha256 for recording in recordings]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def reference_settings(
    release: Release, options: EnrolOptions = DEFAULT_OPTIONS, recordings: int = 1
) -> ReferenceSettings:
    """Settings for references of a release: at most about a third of the model's context, so that
    there is room for text and speech, and what `options` says."""
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
    given: ReferenceSettings | None = None,
    options: EnrolOptions = DEFAULT_OPTIONS,
) -> Reference:
    """One reference of all recordings, with a hint of several speakers in its report. `given`
    settings stand before those of `options`. Raises AudioError."""
    settings = given or reference_settings(release, options, len(recordings))
    joining = len(recordings) > 1 and "join" not in options.without
    within: list[Segment | None] = [None] * len(recordings)
    told: list[str] = []
    if options.best_of > 1:
        score = by_likeness(codec) if options.choose_by == "likeness" else by_gain(release, codec)
        count = len(recordings) if joining else 1
        share = (settings.max_seconds - PAUSE_SECONDS * (count - 1)) / count
        small = settings.model_copy(update={"max_seconds": share})
        within, told = choose_crops(recordings, small, codec, score, options.best_of)
    if joining:
        reference = prepare_joined(recordings, settings, within)
    elif len(recordings) > 1:
        reference = best_alone(recordings, settings, within)
    else:
        reference = prepare_reference(recordings[0], settings, segment=within[0])
    report = reference.report.with_speaker_consistency(unity(torch.from_numpy(reference.wave_S)))
    return replace(reference, report=replace(report, actions=(*told, *report.actions)))


def _likeness(codec: Codec, codes_KT: Tensor, reference: Reference) -> dict[str, float]:
    """Cosine of the decoded codes to the reference: what the codes have kept of the voice."""
    embedder = Ge2eEmbedder.load()
    device = codec.quantizer.semantic_codebook.cluster_usage.device
    with torch.inference_mode():
        decoded_S = codec.decode(codes_KT[None].to(device))[0].float()
    try:
        reference_S = torch.from_numpy(reference.wave_S)
        value = speaker_similarity(
            embedder, normalize_loudness(decoded_S), normalize_loudness(reference_S)
        )
    except AudioError:
        return {}  # codes that decode to silence are alike to nothing
    return {f"{embedder.name}, decoded codes": round(value, 4)}
