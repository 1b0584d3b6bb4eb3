"""Choose the crop of a recording that makes the best voice, by the other crops.

Similarity is the cosine of the crop's decoded codes to the other crops, by the packaged speaker
encoder. It needs the codec alone. Gain is the conditioning gain on the other crops: how much
likelier they are to the model after the crop's voice than after presets. Semantic and flow losses
are added as in training. It needs the language model.

Shapes: S samples, K codebooks, T frames, N frames of a voice embedding, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from voxclone.audio.files import Recording
from voxclone.audio.loudness import normalize_loudness
from voxclone.audio.reference import ReferenceSettings, candidate_segments, prepare_reference
from voxclone.audio.segments import Segment
from voxclone.cloning.transcription import load_transcriber
from voxclone.codec.model import Codec
from voxclone.errors import UsageError
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.release.release import Release
from voxclone.tts.likelihood import likelihood, other_speakers
from voxclone.tts.tts import TTS
from voxclone.voice.embedding import voice_embedding


@dataclass(frozen=True)
class Candidate:
    """A crop of recording number `source`: samples [S] and codes [K, T]."""

    source: int
    segment: Segment
    wave_S: Tensor
    codes_KT: Tensor


Score = Callable[[Candidate, list[Candidate]], list[float]]
"""The scores of a candidate by each of the others, with which it shares no sample."""


def choose_crops(
    recordings: Sequence[Recording],
    settings: ReferenceSettings,
    codec: Codec,
    score: Score,
    count: int,
) -> tuple[list[Segment | None], list[str]]:
    """The best of up to `count` crops of each recording, and a sentence on each choice.

    None for a recording with one crop only, or without other crops to compare with.
    """
    candidates = [
        _candidate(number, recording, segment, settings, codec)
        for number, recording in enumerate(recordings)
        for segment in candidate_segments(recording, settings, count)
    ]
    best: list[Segment | None] = []
    sentences = []
    for number, recording in enumerate(recordings):
        own = [each for each in candidates if each.source == number]
        means = [_mean(score(each, _others(each, candidates))) for each in own]
        scored = [(mean, each) for mean, each in zip(means, own, strict=True) if mean is not None]
        if len(own) < 2 or len(scored) < len(own):
            best.append(None)
            sentences.append(f"There is one crop of {recording.source} only: nothing to choose.")
            continue
        scored.sort(key=lambda item: -item[0])
        start, end = (sample / recording.sampling_rate for sample in scored[0][1].segment)
        rest = ", ".join(f"{value:.3f}" for value, _ in scored[1:])
        best.append(scored[0][1].segment)
        sentences.append(
            f"Chose {start:.2f} s to {end:.2f} s of {recording.source}, the best of "
            f"{len(scored)} crops: {scored[0][0]:.3f}, the others {rest}."
        )
    return best, sentences


def by_similarity(codec: Codec) -> Score:
    """Cosine of a crop's decoded codes to each other crop."""
    embedder = Ge2eEmbedder.load()

    def score(candidate: Candidate, others: list[Candidate]) -> list[float]:
        with torch.inference_mode():
            decoded_S = codec.decode(candidate.codes_KT[None].to(codec.device))[0].float().cpu()
        own_E = embedder.embed(normalize_loudness(decoded_S))
        return [float(own_E @ embedder.embed(normalize_loudness(each.wave_S))) for each in others]

    return score


def by_gain(release: Release, codec: Codec, adapter: Path | None = None) -> Score:
    """Conditioning gain of a crop's voice on each other crop, in nats plus squared error. Raises
    UsageError for a release without presets."""
    presets = other_speakers(release)
    if not presets:
        raise UsageError(f"{release.path} has no preset to compare with: choose by similarity.")
    tts = TTS.load(release, codec=codec, device=codec.device, adapter=adapter)
    transcribe = load_transcriber()
    tts.require_encoder(codec.encoder_hash())
    known: dict[int, tuple[str, float]] = {}

    def loss(voice_ND: Tensor, text: str, codes_KT: Tensor) -> float:
        found = likelihood(tts, voice_ND, text, codes_KT)
        return found.semantic + found.flow

    def after_presets(other: Candidate) -> tuple[str, float]:
        if id(other) not in known:
            text = transcribe(other.wave_S)
            losses = [loss(voice_ND, text, other.codes_KT) for voice_ND in presets]
            known[id(other)] = text, sum(losses) / len(losses)
        return known[id(other)]

    def score(candidate: Candidate, others: list[Candidate]) -> list[float]:
        embedding_ND = voice_embedding(candidate.codes_KT, release)
        voice_ND = tts.adapted(embedding_ND, candidate.codes_KT)
        gains = []
        for other in others:
            text, baseline = after_presets(other)
            gains.append(baseline - loss(voice_ND, text, other.codes_KT))
        return gains

    return score


def _candidate(
    number: int, recording: Recording, segment: Segment, settings: ReferenceSettings, codec: Codec
) -> Candidate:
    reference = prepare_reference(recording, settings, segment=segment)
    wave_S = torch.from_numpy(reference.wave_S)
    with torch.inference_mode():
        codes_KT: Tensor = codec.encode(wave_S[None].to(codec.device))[0].cpu()
    return Candidate(number, segment, wave_S, codes_KT)


def _others(candidate: Candidate, candidates: list[Candidate]) -> list[Candidate]:
    """The candidates that share no sample with this one."""
    return [
        other
        for other in candidates
        if other is not candidate
        and (other.source != candidate.source or not other.segment.overlap(candidate.segment))
    ]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
