"""From recordings to a refined voice.

Shapes: S samples, K codebooks, T frames, N frames of a voice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.audio.files import Recording
from voxclone.audio.reference import Reference
from voxclone.cloning.enroll import DEFAULT_OPTIONS, make_reference, recordings_hash, voice_of
from voxclone.cloning.options import EnrollOptions
from voxclone.cloning.refine.evaluation import Evaluation, Job
from voxclone.cloning.refine.gain import ConditioningGain
from voxclone.cloning.refine.halves import transcribed_halves
from voxclone.cloning.refine.loop import Progress, RefineResult, refine_codes
from voxclone.cloning.refine.parameters import (
    Start,
    from_codes,
    from_encoder,
    from_nothing,
    nearest_frames,
)
from voxclone.cloning.refine.settings import RefineSettings
from voxclone.codec.model import Codec
from voxclone.errors import UsageError, printable
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.release.release import Release
from voxclone.tts.tts import TTS
from voxclone.voice.file import Voice
from voxclone.voice.metadata import Consent
from voxclone.voice.presets import preset_inversions
from voxclone.voice.resolve import ResolvedVoice

INITS = ("encoder", "nothing")
NO_ENCODER = "none"
MAX_STORED = 64
"""Evaluations that go into a voice file, whose header must stay small."""


@dataclass(frozen=True)
class RefinedVoice:
    """A refined voice, its reference, and the result of the loop."""

    voice: Voice
    reference: Reference
    result: RefineResult


def refine(
    recordings: Sequence[Recording],
    release: Release,
    codec: Codec,
    *,
    name: str,
    consent: Consent,
    init: ResolvedVoice | str = "encoder",
    settings: RefineSettings | None = None,
    options: EnrollOptions = DEFAULT_OPTIONS,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> RefinedVoice:
    """Refine the codes of recordings of one speaker into a voice of `release`.

    Codes start from `init`: `encoder`, `nothing`, or a voice. `folder` takes checkpoints. Raises
    AudioError for recordings that cannot be used or are too short, ReleaseError where an encoder is
    needed and missing, UsageError for another `init` or a metric that needs an encoder, and the
    errors of `refine_codes`.
    """
    if isinstance(init, str) and init not in INITS:
        raise UsageError(f"Codes start from encoder, nothing or a voice, not from {init!r}.")
    settings = settings or RefineSettings(select_by=default_metric(codec))
    if settings.select_by == "gain" and codec.encoder is None:
        raise UsageError(
            "To select by gain, an encoder is needed for the codes of the other half: select by "
            "similarity (and leave the weight `speaker` at 0), or name an encoder."
        )
    codec.requires_grad_(False)
    reference = make_reference(list(recordings), release, codec, options)
    source = recordings_hash(recordings)
    kept_S = torch.from_numpy(reference.wave_S)
    device = codec.device
    wave_S = F.pad(kept_S, (0, -len(kept_S) % codec.frame_size)).to(device)
    start, encoder_hash = _start(init, release, codec, wave_S, reference, source, settings.seed)
    result = refine_codes(
        _job(release, codec, wave_S, start, settings),
        folder=folder, resume=resume, progress=progress,
    )  # fmt: skip
    actions = (*reference.report.actions, *describe(result, settings, start.kind))
    reference = replace(reference, report=replace(reference.report, actions=actions))
    voice = voice_of(
        result.codes_KT.cpu(), reference, recordings, release, codec, name=name, consent=consent,
        encoder_hash=encoder_hash, measured=True,
    )  # fmt: skip
    summary = summarize(result, settings, init if isinstance(init, str) else init.name)
    preprocessing = voice.metadata.preprocessing | {"refinement": printable(summary)}
    metadata = voice.metadata.model_copy(update={"preprocessing": preprocessing})
    return RefinedVoice(replace(voice, metadata=metadata), reference, result)


def _job(
    release: Release, codec: Codec, wave_S: Tensor, start: Start, settings: RefineSettings
) -> Job:
    """The job, with the language model if a loss or the metric needs it."""
    weights, device = settings.weights, wave_S.device
    halves = transcribed_halves(wave_S.cpu(), codec.frame_size)
    with_losses = bool(weights.flow or weights.model_exponent)
    model = gain = None
    if settings.select_by == "gain" or with_losses:
        model = TTS.load(release, codec=codec, device=device)
    if model is not None and codec.encoder is not None:
        target = start if start.kind == "encoder" else from_encoder(codec, wave_S)
        gain = ConditioningGain.load(model, release, halves, target.codes())
    embedder = Ge2eEmbedder.load(str(device))
    return Job(
        codec, wave_S, start, halves, settings, model if with_losses else None, gain, embedder
    )


def default_metric(codec: Codec) -> Literal["gain", "similarity"]:
    """The metric to select by if none is given: gain if there is an encoder, else similarity."""
    return "similarity" if codec.encoder is None else "gain"


def describe(result: RefineResult, settings: RefineSettings, kind: str) -> list[str]:
    """Sentences on the refinement for the report of the reference."""
    begun = {"encoder": "the encoder's codes", "codes": "another voice's codes"}.get(kind, kind)
    ended = {"worse": ", ended early as a metric fell"}.get(result.reason, "")
    sentence = (
        f"Refined the codes in {result.steps} steps from {begun}{ended} "
        f"(seed {settings.seed}, {result.seconds:.0f} s)."
    )
    if result.skipped:
        sentence += (
            f" In {result.skipped} of them losses or gradients were not finite, so they changed "
            "nothing."
        )
    before, kept = result.before, result.kept
    if settings.select_by == "gain":
        change = f"gain {before.gain:.3f} to {kept.gain:.3f} nats a frame"
    else:
        change = f"similarity {before.similarity:.3f} to {kept.similarity:.3f}"
    if kept.step == before.step:
        return [sentence, f"Kept the codes of the start: none were better by {settings.select_by}."]
    return [sentence, f"Kept the codes of step {kept.step}: {change}, each half by the other."]


def summarize(result: RefineResult, settings: RefineSettings, init: str) -> dict[str, Any]:
    """The refinement in the metadata of the voice file."""
    return {
        "init": init,
        "settings": settings.model_dump(mode="json"),
        "steps": result.steps,
        "skipped": result.skipped,
        "ended": result.reason,
        "kept": result.kept.step,
        "evaluations": [each.to_dict() for each in stored_evaluations(result)],
    }


def stored_evaluations(result: RefineResult) -> list[Evaluation]:
    """At most `MAX_STORED` of the evaluations, spread evenly, with the first, the kept and the
    last."""
    evaluations = result.evaluations
    every = -(-len(evaluations) // (MAX_STORED - 2))
    return [
        each
        for index, each in enumerate(evaluations)
        if index % every == 0 or each is result.kept or index == len(evaluations) - 1
    ]


def _start(
    init: ResolvedVoice | str,
    release: Release,
    codec: Codec,
    wave_S: Tensor,
    reference: Reference,
    source: str,
    seed: int,
) -> tuple[Start, str]:
    """The start of the codes, and the hash of the encoder that they come from; `source` is the hash
    of the recordings."""
    frames = len(wave_S) // codec.frame_size
    if init == "encoder":
        return from_encoder(codec, wave_S), codec.encoder_hash()
    if isinstance(init, str):
        return from_nothing(codec, frames, seed), NO_ENCODER
    if init.source is None:
        codes_KN = preset_inversions(release, [init.name])[init.name].codes_KT
        encoder_hash = NO_ENCODER
    else:
        codes_KN, encoder_hash = init.source.codes_KT.long(), init.source.metadata.encoder_hash
    codes_KN = codes_KN.to(wave_S.device)
    if init.source is not None and _is_of(init.source, reference, source, frames):
        return from_codes(codec, codes_KN), encoder_hash
    return from_codes(codec, nearest_frames(codec, wave_S, codes_KN)), encoder_hash


def _is_of(voice: Voice, reference: Reference, source: str, frames: int) -> bool:
    """Whether a voice was made of the same part of the same recording, frame by frame."""
    stored, own = voice.metadata.preprocessing, reference.report
    found = (voice.metadata.reference_hash, *(stored.get(k) for k in ("source", "start", "end")))
    same = found == (source, printable(own.source), own.start, own.end)
    return same and voice.codes_KT.shape[1] == frames
