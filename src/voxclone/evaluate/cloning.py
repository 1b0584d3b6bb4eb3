"""Cloning measured: references of several lengths become voices, voices say texts, and what is said
is compared with its speaker and with the others.

Shapes: S samples, N rows, D width.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from voxclone.audio.loudness import MIN_SAMPLES, normalize_loudness
from voxclone.codec.model import Codec
from voxclone.errors import ConfigError, MissingExtraError, UsageError
from voxclone.evaluate.mos import rate_all
from voxclone.evaluate.similarity import likeness_of
from voxclone.evaluate.speechset import SpeechSet, Utterance
from voxclone.evaluate.statistics import Interval
from voxclone.evaluate.synthesis import Saying, as_said, manner_of, say
from voxclone.evaluate.wer import word_error
from voxclone.models.dnsmos import MosPredictor
from voxclone.models.speaker_encoder import SpeakerEmbedder
from voxclone.models.transcribers import Transcriber, transcribe_or_empty
from voxclone.release.release import Release, load_table
from voxclone.release.tensors import codebook_offsets
from voxclone.spec import SAMPLING_RATE
from voxclone.tts.tts import TTS
from voxclone.voice.rows import voice_rows

SCHEMA = "voxclone.voices/2"
PAUSE = 4800  # samples between joined clips

Track = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class VoicePlan:
    """What is measured: seconds of reference, sentences of each speaker, seeds, guidance."""

    lengths: tuple[float, ...] = (3.0, 5.0, 10.0, 16.0, 25.0)
    sentences: int = 2
    seeds: tuple[int, ...] = (0, 1, 2)
    cfg: float = 1.2


@dataclass(frozen=True)
class VoiceScores:
    """Figures of one length of reference. `likeness` is by embedder: matched, shuffled and gain;
    the last four as in `said.Manner`."""

    seconds: float
    speakers: int
    sayings: int
    likeness: dict[str, dict[str, Interval]]
    cer: dict[str, float]
    wer: dict[str, float]
    opinion: dict[str, Interval]
    ended: Interval | None
    early: Interval
    pace: Interval
    level: Interval | None


@dataclass(frozen=True)
class Example:
    """A reference [S] of so many seconds, and the text in its voice [S]."""

    speaker: str
    seconds: float
    text: str
    reference_S: Tensor
    spoken_S: Tensor


@dataclass(frozen=True)
class VoicesReport:
    """Scores by length of reference; `missing` names lengths and figures that could not be had.
    `examples` are one of each speaker, of the longest reference that was measured."""

    encoder: str
    scores: list[VoiceScores]
    missing: dict[str, str]
    examples: list[Example]

    def to_json(self) -> dict[str, Any]:
        """JSON values with their schema, without the examples."""
        return {
            "schema": SCHEMA,
            "encoder": self.encoder,
            "scores": [asdict(each) for each in self.scores],
            "missing": self.missing,
        }


def evaluate_voices(
    release: Release,
    codec: Codec,
    model: TTS,
    speech: SpeechSet,
    embedders: Sequence[SpeakerEmbedder],
    transcribers: Sequence[Transcriber],
    plan: VoicePlan,
    *,
    name: str,
    listener: MosPredictor | None = None,
    track: Track = lambda items, what: items,
) -> VoicesReport:
    """Clone every speaker of `speech` and measure. Raises ConfigError with fewer than two."""
    owners = speech.by_speaker()
    if len(owners) < 2:
        raise ConfigError("A shuffled comparison needs speech of at least two speakers.")
    missing: dict[str, str] = {}
    scores = []
    examples: dict[str, Example] = {}
    for seconds in plan.lengths:
        sayings = plan_sayings(release, codec, model, owners, seconds, plan)
        if len({each.speaker for each in sayings}) < 2:
            missing[f"{seconds:g} s"] = (
                "fewer than two speakers have so much speech and a context with room for it"
            )
            continue
        groups = [sayings[i : i + 16] for i in range(0, len(sayings), 16)]
        spoken: list[tuple[Tensor, bool]] = []
        for group in track(groups, f"speaking after {seconds:g} s"):
            spoken += say(model, group, cfg=plan.cfg)
        scores.append(
            score_sayings(
                seconds, sayings, spoken, embedders, transcribers, listener, missing, track
            )
        )
        examples = {
            each.speaker: Example(each.speaker, seconds, each.text, each.reference_S, wave_S)
            for each, (wave_S, _) in reversed(list(zip(sayings, spoken, strict=True)))
            if len(wave_S) >= MIN_SAMPLES
        }
    return VoicesReport(name, scores, missing, list(examples.values()))


def plan_sayings(
    release: Release,
    codec: Codec,
    model: TTS,
    owners: Mapping[str, Sequence[Utterance]],
    seconds: float,
    plan: VoicePlan,
) -> list[Saying]:
    """Voices from the first `seconds` of each speaker, and texts of the speaker's later clips (or,
    where those have none, of any clip in the same language). Speakers with less speech, and voices
    that leave the context no room, are left out."""
    table_VD, offsets = load_table(release), codebook_offsets(release.params)
    texts: dict[str | None, list[str]] = {}
    for each in (utterance for own in owners.values() for utterance in own):
        if each.clip.text:
            texts.setdefault(each.clip.language, []).append(each.clip.text)
    sayings = []
    for number, (speaker, own) in enumerate(owners.items()):
        reference_S, used = reference_of(own, seconds)
        if reference_S is None:
            continue
        with torch.inference_mode():
            codes_KT = codec.encode(reference_S[None])[0]
        rows_ND = voice_rows(codes_KT, table_VD, offsets)
        later = [each.clip.text for each in own[used:] if each.clip.text]
        choice = (
            later or texts.get(own[0].clip.language) or [t for ts in texts.values() for t in ts]
        )
        try:
            room = model.part_characters(len(rows_ND))
        except UsageError:
            continue
        choice = [text for text in choice if len(text) <= room]
        if not choice:
            continue
        for turn in range(plan.sentences):
            text = choice[(number * 13 + turn) % len(choice)]
            for seed in plan.seeds:
                sayings.append(Saying(speaker, rows_ND, reference_S, text, seed))
    return sayings


def reference_of(own: Sequence[Utterance], seconds: float) -> tuple[Tensor | None, int]:
    """The first `seconds` of clips joined with short pauses, and how many clips went in; None if
    there is less speech."""
    wanted = round(seconds * SAMPLING_RATE)
    parts: list[Tensor] = []
    for used, each in enumerate(own, 1):
        parts += [each.wave_S, torch.zeros(PAUSE)]
        joined_S = torch.cat(parts[:-1])
        if len(joined_S) >= wanted:
            return joined_S[:wanted], used
    return None, len(own)


def score_sayings(
    seconds: float,
    sayings: Sequence[Saying],
    spoken: Sequence[tuple[Tensor, bool]],
    embedders: Sequence[SpeakerEmbedder],
    transcribers: Sequence[Transcriber],
    listener: MosPredictor | None,
    missing: dict[str, str],
    track: Track = lambda items, what: items,
) -> VoiceScores:
    """Figures of what was said after references of so many seconds; what cannot be had goes into
    `missing` with the reason."""
    names = [each.speaker for each in sayings]
    said = as_said(sayings, spoken)
    references = {each.speaker: normalize_loudness(each.reference_S) for each in reversed(sayings)}
    alike = {}
    for embedder in embedders:
        try:
            embedded = {name: embedder.embed(wave_S) for name, wave_S in references.items()}
            alike[embedder.name] = likeness_of(said, embedded, embedder)
        except MissingExtraError as error:
            missing[embedder.name] = str(error)
    waves = [wave_S for wave_S, _ in spoken]
    heard = {
        each.name: [
            transcribe_or_empty(each, wave_S) for wave_S in track(waves, f"hearing, {each.name}")
        ]
        for each in transcribers
    }
    texts = [each.text for each in sayings]
    pairs = {name: list(zip(texts, words, strict=True)) for name, words in heard.items()}
    return VoiceScores(
        seconds=seconds,
        speakers=len(set(names)),
        sayings=len(sayings),
        likeness=alike,
        cer={name: word_error(both, characters=True) for name, both in pairs.items()},
        wer={name: word_error(both) for name, both in pairs.items()},
        opinion=rate_all(listener, track(waves, "rating"), names, missing) if listener else {},
        **vars(manner_of(said)),
    )
