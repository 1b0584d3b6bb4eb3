"""Evaluation of voice cloning by length of reference.

References of several lengths become voices, the voices speak texts, and the speech is compared with
its own speaker and with the others.

Shapes: S samples, N voice embeddings, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from voxclone.cloning.enroll import decode_codes
from voxclone.codec.model import Codec
from voxclone.errors import ConfigError, UsageError
from voxclone.evaluate.metric_models import MetricModels, mean_mos, transcripts
from voxclone.evaluate.progress import Track, untracked
from voxclone.evaluate.similarity import Similarity, similarity_by_embedder
from voxclone.evaluate.speechset import SpeechSet, Utterance
from voxclone.evaluate.statistics import Interval
from voxclone.evaluate.synthesis import Synthesis, SynthesisRequest, speech_stats, synthesize
from voxclone.evaluate.wer import character_error_rate, word_error_rate
from voxclone.release.release import Release, load_preset, load_table
from voxclone.release.tensors import codebook_offsets
from voxclone.spec import SAMPLING_RATE
from voxclone.tts.tts import TTS
from voxclone.voice.embedding import embed_codes
from voxclone.voice.presets import preset_codes

SCHEMA = "voxclone.voices/3"
PAUSE = 4800  # samples between joined clips


@dataclass(frozen=True)
class CloningPlan:
    """Seconds of reference, sentences of each speaker, seeds of each sentence, and guidance."""

    lengths: tuple[float, ...] = (3.0, 5.0, 10.0, 16.0, 25.0)
    sentences: int = 2
    seeds: tuple[int, ...] = (0, 1, 2)
    cfg: float = 1.2


@dataclass(frozen=True)
class CloningScores:
    """Metrics for one length of reference. `similarity` is by embedder, `cer` and `wer` by
    transcriber, `dnsmos` by scale; the last four as in `synthesis.SpeechStats`."""

    seconds: float
    speakers: int
    utterances: int
    similarity: dict[str, Similarity]
    cer: dict[str, float]
    wer: dict[str, float]
    dnsmos: dict[str, Interval]
    ended: Interval | None
    early: Interval
    pace: Interval
    level: Interval | None


@dataclass(frozen=True)
class CloningExample:
    """A reference [S] of some seconds, and a text in its voice [S]."""

    speaker: str
    seconds: float
    text: str
    reference_S: Tensor
    cloned_S: Tensor


@dataclass(frozen=True)
class CloningReport:
    """Scores by length of reference; `missing` names what could not be measured. `examples` are one
    of each speaker, for the longest reference."""

    encoder: str
    scores: list[CloningScores]
    missing: dict[str, str]
    examples: list[CloningExample]

    def to_json(self) -> dict[str, Any]:
        """JSON values with their schema, without the examples."""
        return {
            "schema": SCHEMA,
            "encoder": self.encoder,
            "scores": [asdict(each) for each in self.scores],
            "missing": self.missing,
        }


@dataclass(frozen=True)
class ClonedVoice:
    """A voice [N, D], its reference [S], texts to speak that are not in the reference, and the
    number of the speaker's clips in the reference."""

    voice_ND: Tensor
    reference_S: Tensor
    texts: list[str]
    used: int = 0


def evaluate_cloning(
    release: Release,
    codec: Codec,
    model: TTS,
    speech: SpeechSet,
    models: MetricModels,
    plan: CloningPlan,
    *,
    name: str,
    track: Track = untracked,
) -> CloningReport:
    """Clone every speaker of `speech` and measure. `name` is the encoder's in the report.

    Raises ConfigError with fewer than two speakers.
    """
    speakers = speech.by_speaker()
    if len(speakers) < 2:
        raise ConfigError("Cross-speaker similarity needs speech of at least two speakers.")
    missing: dict[str, str] = {}
    scores = []
    examples: list[CloningExample] = []
    for seconds in plan.lengths:
        voices = clone_speakers(release, codec, model, speakers, seconds)
        if len(voices) < 2:
            missing[f"{seconds:g} s"] = (
                "fewer than two speakers have so much speech and a context with room for it"
            )
            continue
        syntheses = synthesize(model, plan_requests(voices, plan), cfg=plan.cfg, track=track)
        references = {speaker: voice.reference_S for speaker, voice in voices.items()}
        scores.append(score_cloning(seconds, syntheses, references, models, missing, track))
        audible = {each.speaker: each for each in reversed(syntheses) if len(each.wave_S)}
        examples = [
            CloningExample(each.speaker, seconds, each.text, reference_S, each.wave_S)
            for speaker, reference_S in references.items()
            if (each := audible.get(speaker)) is not None
        ]
    return CloningReport(name, scores, missing, examples)


def evaluate_presets(
    release: Release,
    codec: Codec,
    model: TTS,
    models: MetricModels,
    plan: CloningPlan,
    texts: Sequence[str],
    missing: dict[str, str],
    track: Track = untracked,
) -> CloningScores:
    """The same metrics of the release's own presets, which speak `texts`, one sentence each: what
    clones can be compared with. A preset's reference is its codes, decoded. Reasons for what
    could not be measured are added to `missing`."""
    voices = {}
    for name, codes_KT in preset_codes(release).codes.items():
        reference_S = decode_codes(codes_KT, codec)
        voice_ND = load_preset(release, name)
        room = model.part_characters(len(voice_ND))
        fitting = [text for text in texts if len(text) <= room]
        if fitting:
            voices[name] = ClonedVoice(voice_ND, reference_S, fitting)
    requests = plan_requests(voices, replace(plan, sentences=1, seeds=plan.seeds[:1]))
    syntheses = synthesize(model, requests, cfg=plan.cfg, track=track)
    references = {name: voice.reference_S for name, voice in voices.items()}
    return score_cloning(0.0, syntheses, references, models, missing, track)


def clone_speakers(
    release: Release,
    codec: Codec,
    model: TTS,
    speakers: Mapping[str, Sequence[Utterance]],
    seconds: float,
) -> dict[str, ClonedVoice]:
    """Voices from the first `seconds` of each speaker, with texts of the speaker's later clips, or
    else of any clip in the same language, or else of any clip. Speakers with less speech, and
    voices that leave no room in the context, are left out."""
    table_VD, offsets = load_table(release), codebook_offsets(release.params)
    by_language: dict[str | None, list[str]] = {}
    for each in (utterance for own in speakers.values() for utterance in own):
        if each.clip.text:
            by_language.setdefault(each.clip.language, []).append(each.clip.text)
    every = [text for texts in by_language.values() for text in texts]
    voices = {}
    for speaker, own in speakers.items():
        reference_S, used = join_reference(own, seconds)
        if reference_S is None:
            continue
        with torch.inference_mode():
            codes_KT = codec.encode(reference_S[None])[0]
        voice_ND = model.adapted(embed_codes(codes_KT, table_VD, offsets), codes_KT)
        later = [each.clip.text for each in own[used:] if each.clip.text]
        texts = later or by_language.get(own[0].clip.language) or every
        try:
            room = model.part_characters(len(voice_ND))
        except UsageError:
            continue
        texts = [text for text in texts if len(text) <= room]
        if texts:
            voices[speaker] = ClonedVoice(voice_ND, reference_S, texts, used)
    return voices


def join_reference(own: Sequence[Utterance], seconds: float) -> tuple[Tensor | None, int]:
    """The first `seconds` of clips joined with short pauses, and the number of clips in them; None
    if there is less speech."""
    wanted = round(seconds * SAMPLING_RATE)
    parts: list[Tensor] = []
    for used, each in enumerate(own, 1):
        parts += [each.wave_S, torch.zeros(PAUSE)]
        joined_S = torch.cat(parts[:-1])
        if len(joined_S) >= wanted:
            return joined_S[:wanted], used
    return None, len(own)


def plan_requests(voices: Mapping[str, ClonedVoice], plan: CloningPlan) -> list[SynthesisRequest]:
    """The sentences of each voice, each with every seed."""
    return [
        SynthesisRequest(
            speaker, voice.voice_ND, voice.texts[(number * 13 + turn) % len(voice.texts)], seed
        )
        for number, (speaker, voice) in enumerate(voices.items())
        for turn in range(plan.sentences)
        for seed in plan.seeds
    ]


def score_cloning(
    seconds: float,
    syntheses: Sequence[Synthesis],
    references: Mapping[str, Tensor],
    models: MetricModels,
    missing: dict[str, str],
    track: Track = untracked,
) -> CloningScores:
    """Metrics of syntheses after references [S] of some seconds, by speaker; reasons for what could
    not be measured are added to `missing`."""
    waves = [each.wave_S for each in syntheses]
    pairs = transcripts(models, [each.text for each in syntheses], waves, track)
    speakers = [each.speaker for each in syntheses]
    return CloningScores(
        seconds=seconds,
        speakers=len(set(speakers)),
        utterances=len(syntheses),
        similarity=similarity_by_embedder(syntheses, references, models.embedders, missing, track),
        cer={name: character_error_rate(each) for name, each in pairs.items()},
        wer={name: word_error_rate(each) for name, each in pairs.items()},
        dnsmos=mean_mos(models.mos, waves, speakers, missing, track),
        **vars(speech_stats(syntheses)),
    )
