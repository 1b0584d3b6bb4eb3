"""From recordings to a refined voice.

Shapes: S samples, K code books, T frames, N frames of a voice.
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
from voxclone.cloning.options import EnrolOptions
from voxclone.cloning.refine.free import (
    Start,
    from_codes,
    from_encoder,
    from_nothing,
    nearest_frames,
)
from voxclone.cloning.refine.judging import Job, Judged
from voxclone.cloning.refine.reading import GainJudge, heard_halves
from voxclone.cloning.refine.run import Progress, Refined, refine_codes
from voxclone.cloning.refine.settings import RefineSettings
from voxclone.codec.model import Codec
from voxclone.errors import UsageError
from voxclone.io import tensor_hash
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.release.release import Release
from voxclone.tts.tts import TTS
from voxclone.voice.facts import plain
from voxclone.voice.file import Consent, Voice
from voxclone.voice.presets import preset_inversions
from voxclone.voice.resolve import Chosen

ORIGINS = ("encoder", "nothing")
NO_ENCODER = "none"
MOST_TOLD = 64
"""Judgements that go into a voice file, whose header must stay small."""


@dataclass(frozen=True)
class Made:
    """A refined voice, what was kept of the recordings, and how the refinement went."""

    voice: Voice
    reference: Reference
    refined: Refined


def refine(
    recordings: Sequence[Recording],
    release: Release,
    codec: Codec,
    *,
    name: str,
    consent: Consent,
    origin: Chosen | str = "encoder",
    settings: RefineSettings | None = None,
    options: EnrolOptions = DEFAULT_OPTIONS,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Made:
    """Refine the codes of recordings of one speaker into a voice of `release`.

    `origin` is where the codes start: `encoder`, `nothing`, or a voice. `folder` takes checkpoints.
    Raises AudioError for recordings that cannot be used or are too short to be judged, ReleaseError
    where an encoder is needed and missing, UsageError for another `origin` or a judge that lacks
    one, and what `refine_codes` raises.
    """
    if isinstance(origin, str) and origin not in ORIGINS:
        raise UsageError(f"Codes start from encoder, nothing or a voice, not from {origin!r}.")
    settings = settings or RefineSettings(judge=usual_judge(codec))
    if settings.judge == "gain" and codec.encoder is None:
        raise UsageError(
            "To judge by gain, an encoder is needed, which says what the other half is: judge by "
            "likeness (and leave the weight `speaker` at 0), or name an encoder."
        )
    device = next(codec.decoder.parameters()).device
    codec.requires_grad_(False)
    reference = make_reference(list(recordings), release, codec, None, options)
    size = codec.frame_size
    kept_S = torch.from_numpy(reference.wave_S)
    wave_S = F.pad(kept_S, (0, -len(kept_S) % size)).to(device)
    halves = heard_halves(wave_S.cpu(), size)
    source = recordings_hash(recordings)
    start, encoder_hash = _start(origin, release, codec, wave_S, reference, source, settings.seed)
    model = None
    weights = settings.weights
    if settings.judge == "gain" or weights.likely_levels or weights.likely_semantic:
        model = TTS.load(release, codec=codec, device=device)
    gain = None
    if model is not None and codec.encoder is not None:
        heard = start if start.kind == "encoder" else from_encoder(codec, wave_S)
        gain = GainJudge.load(model, release, halves, heard.codes())
    asked = model if weights.likely_levels or weights.likely_semantic else None
    embedder = Ge2eEmbedder.load(str(device))
    job = Job(codec, wave_S, start, halves, settings, asked, gain, embedder)
    refined = refine_codes(job, folder=folder, resume=resume, progress=progress)
    report = replace(
        reference.report, actions=(*reference.report.actions, *told(refined, settings, start.kind))
    )
    reference = replace(reference, report=report)
    voice = voice_of(
        refined.codes_KT.cpu(), reference, recordings, release, codec, name=name, consent=consent,
        encoder_hash=encoder_hash, measured=True,
    )  # fmt: skip
    origin_name = origin if isinstance(origin, str) else origin.name
    facts = voice.facts.model_copy(
        update={
            "preprocessing": voice.facts.preprocessing
            | {"refinement": plain(facts_of(refined, settings, origin_name))}
        }
    )
    return Made(replace(voice, facts=facts), reference, refined)


def usual_judge(codec: Codec) -> Literal["gain", "likeness"]:
    """The judge where none is asked for: by gain if there is an encoder, else by likeness."""
    return "likeness" if codec.encoder is None else "gain"


def told(refined: Refined, settings: RefineSettings, kind: str) -> list[str]:
    """What was done, in sentences for the report of the reference."""
    begun = {"encoder": "the encoder's codes", "codes": "another voice's codes"}.get(kind, kind)
    ended = {"worse": ", ended early as a figure fell"}.get(refined.reason, "")
    sentence = (
        f"Refined the codes in {refined.steps} steps from {begun}{ended} "
        f"(seed {settings.seed}, {refined.seconds:.0f} s)."
    )
    if refined.skipped:
        sentence += (
            f" In {refined.skipped} of them losses or gradients were not finite, so they changed "
            "nothing."
        )
    before, kept = refined.before, refined.kept
    if settings.judge == "gain":
        figures = f"gain {before.gain:.3f} to {kept.gain:.3f} nats a frame"
    else:
        figures = f"likeness {before.likeness:.3f} to {kept.likeness:.3f}"
    if kept.step == before.step:
        return [sentence, f"Kept the codes of the start: none were better by {settings.judge}."]
    return [sentence, f"Kept the codes of step {kept.step}: {figures}, each half by the other."]


def facts_of(refined: Refined, settings: RefineSettings, origin: str) -> dict[str, Any]:
    """What the voice file says of it."""
    return {
        "origin": origin,
        "settings": settings.model_dump(mode="json"),
        "steps": refined.steps,
        "skipped": refined.skipped,
        "ended": refined.reason,
        "kept": refined.kept.step,
        "judged": [each.figures() for each in told_judgements(refined)],
    }


def told_judgements(refined: Refined) -> list[Judged]:
    """At most `MOST_TOLD` of the judgements, spread evenly, with the first, the kept and the
    last."""
    judged = refined.judged
    every = -(-len(judged) // (MOST_TOLD - 2))
    return [
        each
        for place, each in enumerate(judged)
        if place % every == 0 or each is refined.kept or place == len(judged) - 1
    ]


def _start(
    origin: Chosen | str,
    release: Release,
    codec: Codec,
    wave_S: Tensor,
    reference: Reference,
    source: str,
    seed: int,
) -> tuple[Start, str]:
    """Where codes start, and the hash of the encoder that they come from; `source` is the hash of
    the recordings."""
    frames = len(wave_S) // codec.frame_size
    if origin == "encoder":
        encoder = codec.require_encoder()
        return from_encoder(codec, wave_S), tensor_hash(*encoder.state_dict().values())
    if isinstance(origin, str):
        return from_nothing(codec, frames, seed), NO_ENCODER
    if origin.voice is None:
        codes_KN = preset_inversions(release, [origin.name])[origin.name].codes_KT
        encoder_hash = NO_ENCODER
    else:
        codes_KN, encoder_hash = origin.voice.codes_KT.long(), origin.voice.facts.encoder_hash
    codes_KN = codes_KN.to(wave_S.device)
    if origin.voice is not None and _is_of(origin.voice, reference, source, frames):
        return from_codes(codec, codes_KN), encoder_hash
    return from_codes(codec, nearest_frames(codec, wave_S, codes_KN)), encoder_hash


def _is_of(voice: Voice, reference: Reference, source: str, frames: int) -> bool:
    """Whether a voice was made of the same stretch of the same recording, frame by frame."""
    told, own = voice.facts.preprocessing, reference.report
    theirs = (voice.facts.reference_hash, told.get("source"), told.get("start"), told.get("end"))
    same = theirs == (source, plain(own.source), own.start, own.end)
    return same and voice.codes_KT.shape[1] == frames
