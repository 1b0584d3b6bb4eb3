"""Which of several crops makes the best voice: judged by what it says of the other crops.

*Likeness*: of the crop's decoded codes to the other crops, by the packaged speaker network; it
runs the codec alone. *Gain*: how much likelier the model finds the other crops after the crop's
voice than after presets' (the conditioning gain of `evaluate.acceptance`, semantic and flow losses
added as in training); it needs the language model. What the crops say is heard by the packaged
recogniser, which knows English: a text misheard is misheard in both terms of the difference.

Shapes: S samples, K code books, T frames, N voice rows, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxclone.audio.files import Recording
from voxclone.audio.loudness import normalize_loudness
from voxclone.audio.reference import ReferenceSettings, candidate_segments, prepare_reference
from voxclone.audio.segments import Segment
from voxclone.codec.model import Codec
from voxclone.errors import UsageError
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.release.release import Release, load_preset, preset_names
from voxclone.tts.likelihood import OTHERS, likelihood
from voxclone.voice.embedding import rows_of

UNHEARD = "a"  # stands for words where none are heard


@dataclass(frozen=True)
class Candidate:
    """A crop of recording number `source`: samples [S] and codes [K, T]."""

    source: int
    segment: Segment
    wave_S: Tensor
    codes_KT: Tensor


# Of each candidate, its score by each other candidate that it shares nothing with.
Score = Callable[[Candidate, list[Candidate]], list[float]]


def choose_crops(
    recordings: Sequence[Recording],
    settings: ReferenceSettings,
    codec: Codec,
    score: Score,
    count: int,
) -> tuple[list[Segment | None], list[str]]:
    """The best of up to `count` crops of each recording, and a sentence on each choice.

    None where a recording has one crop only, or there is nothing else to judge it by.
    """
    candidates = [
        Candidate(number, segment, wave_S, _encode(codec, wave_S))
        for number, recording in enumerate(recordings)
        for segment in candidate_segments(recording, settings, count)
        for wave_S in [
            torch.from_numpy(prepare_reference(recording, settings, segment=segment).wave_S)
        ]
    ]
    chosen: list[Segment | None] = []
    sentences = []
    for number, recording in enumerate(recordings):
        own = [each for each in candidates if each.source == number]
        judged = [(_mean(score(each, _others(each, candidates))), each) for each in own]
        figures = [(value, each) for value, each in judged if value is not None]
        if len(own) < 2 or len(figures) < len(own):
            chosen.append(None)
            sentences.append(f"There is one crop of {recording.source} only: nothing to choose.")
            continue
        figures.sort(key=lambda item: -item[0])
        start, end = (place / recording.sampling_rate for place in figures[0][1].segment)
        values = ", ".join(f"{value:.3f}" for value, _ in figures[1:])
        chosen.append(figures[0][1].segment)
        sentences.append(
            f"Chose {start:.2f} s to {end:.2f} s of {recording.source}, the best of "
            f"{len(figures)} crops: {figures[0][0]:.3f}, the others {values}."
        )
    return chosen, sentences


def by_likeness(codec: Codec) -> Score:
    """Cosine of a crop's decoded codes to each other crop."""
    embedder = Ge2eEmbedder.load()

    def score(candidate: Candidate, others: list[Candidate]) -> list[float]:
        with torch.inference_mode():
            decoded_S = codec.decode(candidate.codes_KT[None])[0].float()
        own_E = embedder.embed(normalize_loudness(decoded_S))
        return [float(own_E @ embedder.embed(normalize_loudness(other.wave_S))) for other in others]

    return score


def by_gain(release: Release, codec: Codec) -> Score:
    """Nats and squared errors by which each other crop is likelier after a crop's voice than after
    presets'. Raises UsageError for a release without presets."""
    from voxclone.models.ctc_asr import load_packaged_recognizer
    from voxclone.models.transcribers import CharacterTranscriber, transcribe_or_empty
    from voxclone.tts.tts import TTS

    names = preset_names(release)
    if not names:
        raise UsageError(f"{release.path} has no preset to compare with: choose by likeness.")
    step = max(1, len(names) // OTHERS)
    strangers = [load_preset(release, name) for name in names[::step][:OTHERS]]
    model = TTS.load(release, codec=codec)
    recogniser = CharacterTranscriber(load_packaged_recognizer())
    known: dict[int, tuple[str, float]] = {}

    def loss(rows_ND: Tensor, text: str, codes_KT: Tensor) -> float:
        found = likelihood(model, rows_ND, text, codes_KT)
        return found.semantic + found.flow

    def unconditional(other: Candidate) -> tuple[str, float]:
        if id(other) not in known:
            text = transcribe_or_empty(recogniser, other.wave_S).strip() or UNHEARD
            losses = [loss(rows_ND, text, other.codes_KT) for rows_ND in strangers]
            known[id(other)] = text, sum(losses) / len(losses)
        return known[id(other)]

    def score(candidate: Candidate, others: list[Candidate]) -> list[float]:
        rows_ND = rows_of(candidate.codes_KT, release)
        gains = []
        for other in others:
            text, stranger = unconditional(other)
            gains.append(stranger - loss(rows_ND, text, other.codes_KT))
        return gains

    return score


def _encode(codec: Codec, wave_S: Tensor) -> Tensor:
    with torch.inference_mode():
        codes_KT: Tensor = codec.encode(wave_S[None])[0]
    return codes_KT


def _others(candidate: Candidate, candidates: list[Candidate]) -> list[Candidate]:
    """The candidates that share no sample with this one."""

    def apart(other: Candidate) -> bool:
        (_, end), (start, _) = sorted([candidate.segment, other.segment])
        return other.source != candidate.source or end <= start

    return [other for other in candidates if other is not candidate and apart(other)]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
