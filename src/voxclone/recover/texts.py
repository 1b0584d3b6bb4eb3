"""Whether texts are those of their recordings, by a recognizer.

A recognizer that errs often still errs more on the text of another clip.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from voxclone.data.manifest import Clip, Manifest
from voxclone.evaluate.speechset import SpeechSet, load_speech
from voxclone.evaluate.wer import character_error_rate
from voxclone.models.ctc_asr import load_packaged_recognizer
from voxclone.models.transcribers import CharacterTranscriber, transcribe_or_empty

CLIPS, FEWEST = 24, 8
LEAST_SECONDS, MOST_SECONDS = 2.0, 12.0
WORSE = 0.95
"""Of the error rate with texts of other clips: an error rate above that fails."""


@dataclass(frozen=True)
class Mismatch:
    """Why texts are not those of their recordings; not `certain` where the language is not known to
    be English, which is all that the recognizer knows."""

    sentence: str
    certain: bool


def failed_texts(manifest: Path) -> Mismatch | None:
    """Whether the texts of a manifest cannot be those of its recordings; None where they may be,
    and where fewer than eight clips, perhaps English, have texts that differ."""
    speech = drawn_clips(manifest)
    if speech is None:
        return None
    recognizer = CharacterTranscriber(load_packaged_recognizer())
    sentence = failed_match(
        [each.clip.text or "" for each in speech.utterances],
        [each.wave_S for each in speech.utterances],
        lambda wave_S: transcribe_or_empty(recognizer, wave_S),
    )
    certain = all(each.clip.language == "en" for each in speech.utterances)
    return None if sentence is None else Mismatch(sentence, certain)


def failed_match(
    texts: Sequence[str], waves: Sequence[Tensor], transcribe: Callable[[Tensor], str]
) -> str | None:
    """Compare error rates of transcripts with their own texts and with those of the next clips."""
    found = [transcribe(wave_S) for wave_S in waves]
    own = character_error_rate(list(zip(texts, found, strict=True)))
    others = [*texts[1:], texts[0]]
    other = character_error_rate(list(zip(others, found, strict=True)))
    if own <= WORSE * other:
        return None
    return (
        f"Texts do not match their recordings (character error rate of {len(texts)} clips "
        f"{own:.2f}, with texts of other clips {other:.2f}). Give each recording its own text, or "
        "none."
    )


def drawn_clips(manifest: Path) -> SpeechSet | None:
    """Some clips, English as far as is known, with texts that all differ, from all parts of a
    manifest; None where they are too few."""
    clips = Manifest(manifest)
    step, chosen, known = max(1, len(clips) // (8 * CLIPS)), list[Clip](), set[str]()
    for index in range(0, len(clips), step):
        clip = clips[index]
        fits = LEAST_SECONDS <= clip.duration <= MOST_SECONDS and clip.language in (None, "en")
        if fits and clip.text and clip.text not in known and len(chosen) < CLIPS:
            chosen.append(clip)
            known.add(clip.text)
    return load_speech(chosen) if len(chosen) >= FEWEST else None
