"""The speech that an adapter is trained on: those clips of a manifest that are fit for it.

A clip is left out for its length, its level, clipping, a text that a recognizer contradicts, or
since it occurs twice; a speaker for having one clip, since a voice and what it says must be two.

Shapes: S samples.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from voxclone.audio.loudness import active_level
from voxclone.data.corpus import Subset
from voxclone.data.speech import open_speech
from voxclone.errors import AudioError, ConfigError
from voxclone.evaluate.wer import character_error_rate
from voxclone.models.ctc_asr import load_packaged_recognizer
from voxclone.models.transcribers import CharacterTranscriber, Transcriber, transcribe_or_empty
from voxclone.spec import SAMPLING_RATE

MIN_SECONDS, MAX_SECONDS = 1.0, 30.0
MIN_DBFS = -45.0
FULL, CLIPPED_SHARE = 0.999, 1e-3
"""The share of samples at full scale above which a clip is clipped."""
COMPARED_TEXTS = 8
"""A text is contradicted if one of so many other clips' texts is nearer to the transcript: a weak
recognizer is enough for that."""
CONTRADICTED_SHARE = 0.2
"""Of the clips with a text; if more are contradicted, the texts are those of other recordings."""
ENOUGH = (
    (2.0, "too little for anything but a try"),
    (10.0, "too little: identity wants 10 minutes of a voice, and words 45"),
    (45.0, "enough for the identity of one voice, and little for its words (45 minutes)"),
    (float("inf"), "enough for the identity and the words of one voice"),
)
"""Minutes below which speech is enough for no more than this (Orpheus 3B, one voice: WavLM cosine
and WER by minutes of speech, https://huggingface.co/Gurunath/orpheus-3b-lj-voice-data-efficiency)."""


def open_fit_speech(
    path: Path | None,
    licenses: tuple[str, ...] | None,
    minutes: float,
    folder: Path,
    console: Console,
) -> tuple[Subset, dict[str, Any]]:
    """At most so many minutes of the clips of a manifest that are fit, speakers in turn, and the
    numbers of clips that are not, by reason. Says how much it is, and what that is enough for.

    Raises ConfigError as `open_speech` does, and for speech of which nothing is left, which has no
    texts, or whose texts are those of other recordings.
    """
    speech = open_speech(path, licenses, folder, console)
    if not any(speech.corpus.clips[index].text for index in speech.indices):
        raise ConfigError(
            f"No clip of {path} has a text, and an adapter learns from speech whose words are "
            "known: add `text` to its lines."
        )
    lonely = [own[0] for own in speech.by_speaker().values() if len(own) == 1]
    rest = [index for index in speech.indices if index not in set(lonely)]
    if not rest:
        raise ConfigError(
            f"Every speaker of {path} has one clip, and a voice and what it says must be two: give "
            "two or more clips of each."
        )
    chosen = in_turn(Subset(speech.corpus, rest), minutes)
    transcriber = CharacterTranscriber(load_packaged_recognizer())
    reasons = unfit_clips(chosen, transcriber)
    with_text = sum(bool(chosen.corpus.clips[index].text) for index in chosen.indices)
    contradicted = sum(reason == CONTRADICTED for reason in reasons.values())
    if contradicted > CONTRADICTED_SHARE * with_text:
        raise ConfigError(
            f"{contradicted} of {with_text} texts in {path} are contradicted by the recognizer "
            f"{transcriber.name}: they seem to belong to other recordings."
        )
    kept = [index for index in chosen.indices if index not in reasons]
    counts = Counter(chosen.corpus.speaker_N[kept].tolist())
    for index in kept:
        if counts[int(chosen.corpus.speaker_N[index])] < 2:
            reasons[index] = LONELY
    left = [index for index in kept if index not in reasons]
    found = Counter([*reasons.values(), *[LONELY] * len(lonely)])
    words = ", ".join(f"{count} {reason}" for reason, count in sorted(found.items()))
    if not any(speech.corpus.clips[index].text for index in left):
        raise ConfigError(
            f"No clip of {path} is fit to train an adapter on ({words}): give two or more clips of "
            "each speaker, with texts."
        )
    subset = Subset(speech.corpus, left)
    length = subset.seconds / 60
    enough = next(sentence for most, sentence in ENOUGH if length < most)
    speakers = len(subset.by_speaker())
    console.print(
        f"Speech: {len(left)} clips of {speakers} speakers, {length:.1f} minutes: {enough}."
    )
    if found:
        console.print(f"Left out: {words}.", style="yellow")
    used = Counter(speech.corpus.clips[index].license for index in left)
    notes = {
        "clips": len(left), "minutes": round(length, 2), "speakers": speakers,
        "left_out": dict(found), "licenses": dict(used),
    }  # fmt: skip
    return subset, notes


def in_turn(speech: Subset, minutes: float) -> Subset:
    """The first clips of every speaker in turn, up to so many minutes."""
    queues = list(speech.by_speaker().values())
    chosen: list[int] = []
    left = minutes * 60 * SAMPLING_RATE
    for turn in range(max(map(len, queues))):
        for own in queues:
            if turn < len(own) and left > 0:
                chosen.append(own[turn])
                left -= speech.corpus.length(own[turn])
    return Subset(speech.corpus, sorted(chosen))


LONELY = "of speakers with one clip"
CONTRADICTED = "with a text that the recognizer contradicts"


def unfit_clips(speech: Subset, transcriber: Transcriber) -> dict[int, str]:
    """The reason of each clip that is not fit, by its number."""
    clips = speech.corpus.clips
    texts = [clips[index].text or "" for index in speech.indices]
    reasons: dict[int, str] = {}
    known: set[bytes] = set()
    for position, index in enumerate(speech.indices):
        wave_S = speech.corpus.wave(index)
        digest = hashlib.sha256(wave_S.numpy().tobytes()).digest()
        reason = unfit_wave(wave_S)
        if reason is None and digest in known:
            reason = "that occur twice"
        known.add(digest)
        if reason is None and texts[position]:
            step = max(1, len(texts) // (COMPARED_TEXTS + 1))
            others = [
                texts[(position + step * (i + 1)) % len(texts)] for i in range(COMPARED_TEXTS)
            ]
            others = [each for each in others if each and each != texts[position]]
            if contradicts(transcribe_or_empty(transcriber, wave_S), texts[position], others):
                reason = CONTRADICTED
        if reason is not None:
            reasons[index] = reason
    return reasons


def unfit_wave(wave_S: Tensor) -> str | None:
    """Why a recording [S] is not fit, if it is not."""
    seconds = len(wave_S) / SAMPLING_RATE
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        return f"not between {MIN_SECONDS:g} and {MAX_SECONDS:g} s long"
    try:
        level = active_level(wave_S)
    except AudioError:
        return "without sound"
    if level < MIN_DBFS:
        return f"below {MIN_DBFS:g} dBFS"
    if float((wave_S.abs() >= FULL).float().mean()) > CLIPPED_SHARE:
        return "clipped"
    return None


def contradicts(transcript: str, text: str, others: Sequence[str]) -> bool:
    """Whether another text is nearer to a transcript than its own. An empty transcript says
    nothing."""
    if not transcript or not others:
        return False
    own = character_error_rate([(transcript, text)])
    return own > min(character_error_rate([(transcript, other)]) for other in others)
