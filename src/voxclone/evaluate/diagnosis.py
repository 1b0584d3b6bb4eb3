"""All measurements of an encoder that need real speech and the release alone.

Nothing here compares with the true encoder, which a real release withholds. The references are what
the release holds: codebook, presets, decoder and language model.

Shapes: S samples, K codebooks, T frames, N voice embeddings, D width.
"""

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.errors import ConfigError
from voxclone.evaluate.conditioning_gain import ConditioningGain, Trial, conditioning_gain
from voxclone.evaluate.levels import LevelComparison, LevelStats, compare_levels, level_stats
from voxclone.evaluate.progress import Track, untracked
from voxclone.evaluate.round_trip import EncodedUtterance, RoundTrip, encode, round_trip
from voxclone.evaluate.semantic_codes import SemanticCodeStats, semantic_code_stats
from voxclone.evaluate.speechset import SpeechSet
from voxclone.evaluate.synthesis import SynthesisRequest, generate_codes
from voxclone.evaluate.voice_embeddings import (
    EmbeddingComparison,
    InversionStats,
    compare_embeddings,
    inversion_stats,
)
from voxclone.release.release import Release, load_preset, load_table, preset_names
from voxclone.release.tensors import codebook_offsets
from voxclone.tts.tts import TTS
from voxclone.voice.embedding import embed_codes
from voxclone.voice.presets import Inversion, invert_presets

SCHEMA = "voxclone.diagnosis/2"
VOICE_SECONDS = 8.0
MAX_TRIALS = 32
TEXTS = (
    "The morning train was late again, so we walked along the river.",
    "Nobody had seen the old map until she opened the drawer.",
    "Please put the small blue box next to the window.",
)


@dataclass(frozen=True)
class LanguageModelStats:
    """The language model on the encoder's codes of real speech, and for comparison on speech that
    it generated itself with the presets. None where speakers are too few."""

    conditioning_gain: ConditioningGain | None
    generated_conditioning_gain: ConditioningGain | None
    generated_levels: LevelStats


@dataclass(frozen=True)
class Diagnosis:
    """All measurements; `missing` gives the reason of each that could not be made."""

    release: str
    encoder: str
    seconds: float
    speakers: int
    clips: int
    unreadable: dict[str, str]
    semantic_codes: SemanticCodeStats
    levels: LevelComparison
    voice_embeddings: EmbeddingComparison
    preset_inversion: InversionStats
    round_trip: RoundTrip
    language_model: LanguageModelStats | None
    missing: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """JSON values, with the schema and the version of the tool."""
        version = importlib.metadata.version("voxclone")
        return {"schema": SCHEMA, "tool": f"voxclone {version}"} | asdict(self)


def diagnose(
    release: Release,
    codec: Codec,
    speech: SpeechSet,
    *,
    encoder: str,
    model: TTS | None,
    inversions: Mapping[str, Inversion] | None = None,
    seed: int = 0,
    track: Track = untracked,
) -> Diagnosis:
    """Measure the encoder of `codec` on `speech`.

    `encoder` is its name in the report. Without `model`, the release's language model, the
    measurements that need it are missing. `inversions` are those of `preset_inversions`, if known.
    Raises ReleaseError for a codec without an encoder, ConfigError for fewer than two presets.
    """
    codec.require_encoder()
    encoded = [encode(codec, each) for each in track(speech.utterances, "encoding")]
    table_VD, offsets = load_table(release), codebook_offsets(release.params)
    presets = {name: load_preset(release, name) for name in preset_names(release)}
    if inversions is None:
        inversions = invert_presets(presets, table_VD, release.params)
    if len(inversions) < 2:
        raise ConfigError(f"{release.path} has {len(inversions)} presets; two are needed.")
    preset_codes = [found.codes_KT for found in inversions.values()]
    levels, codes = codec.quantizer.levels, [each.codes_KT for each in encoded]
    enrolled = {
        name: embed_codes(each, table_VD, offsets) for name, each in voice_codes(encoded).items()
    }
    missing: dict[str, str] = {}
    lm_stats = None
    if model is None:
        missing["language model"] = "left out on request"
    else:
        trials = make_trials(
            encoded,
            lambda codes_KT: model.adapted(embed_codes(codes_KT, table_VD, offsets), codes_KT),
        )
        lm_stats = language_model_stats(model, trials, presets, levels, seed, track)
        if lm_stats.conditioning_gain is None:
            missing["conditioning gain"] = (
                "needs two speakers with two clips each, one of them with its text"
            )
    return Diagnosis(
        release=str(release.path),
        encoder=encoder,
        seconds=speech.seconds,
        speakers=len(speech.by_speaker()),
        clips=len(speech.utterances),
        unreadable=speech.unreadable,
        semantic_codes=semantic_code_stats(
            codec.quantizer.semantic_codebook,
            [each.semantic_DT.T for each in encoded],
            [codes_KT[0] for codes_KT in codes],
            seed=seed,
        ),
        levels=compare_levels(codes, preset_codes, levels),
        voice_embeddings=compare_embeddings(
            {name: presets[name][: found.codes_KT.shape[1]] for name, found in inversions.items()},
            {name: voice_ND[:-1] for name, voice_ND in enrolled.items()},
        ),
        preset_inversion=inversion_stats(inversions, presets, table_VD, offsets, levels),
        round_trip=round_trip(codec, encoded, inversions, track),
        language_model=lm_stats,
        missing=missing,
    )


def voice_codes(encoded: Sequence[EncodedUtterance]) -> dict[str, Tensor]:
    """Codes [K, T] of about eight seconds of each speaker."""
    voices: dict[str, list[Tensor]] = {}
    seconds: dict[str, float] = {}
    for each in encoded:
        name = each.utterance.speaker
        if seconds.get(name, 0.0) < VOICE_SECONDS:
            voices.setdefault(name, []).append(each.codes_KT)
            seconds[name] = seconds.get(name, 0.0) + each.utterance.seconds
    return {name: torch.cat(parts, dim=1) for name, parts in sorted(voices.items())}


def make_trials(
    encoded: Sequence[EncodedUtterance], embed: Callable[[Tensor], Tensor]
) -> list[Trial]:
    """A trial for each clip with a text, with a voice of the speaker's other clips; at most
    `MAX_TRIALS`, speakers in turn. `embed` gives the embedding [N, D] of codes [K, T]."""
    clips: dict[str, list[EncodedUtterance]] = {}
    for each in encoded:
        clips.setdefault(each.utterance.speaker, []).append(each)
    by_speaker: list[list[Trial]] = []
    for name, own in sorted(clips.items()):
        trials = []
        for index, target in enumerate(own):
            others = own[index + 1 :] + own[:index]
            text = target.utterance.clip.text
            if text and others:
                voice_ND = embed(voice_codes(others)[name])
                trials.append(Trial(name, voice_ND, text, target.codes_KT))
        by_speaker.append(trials)
    rounds = max((len(trials) for trials in by_speaker), default=0)
    ordered = [trials[i] for i in range(rounds) for trials in by_speaker if i < len(trials)]
    return ordered[:MAX_TRIALS]


def language_model_stats(
    model: TTS,
    trials: Sequence[Trial],
    presets: Mapping[str, Tensor],
    levels: int,
    seed: int,
    track: Track,
) -> LanguageModelStats:
    """Compare trials of real speech with speech that the model generates itself."""
    generated = generate_with_presets(model, presets, seed)
    return LanguageModelStats(
        conditioning_gain=conditioning_gain(model, trials, seed=seed, track=track),
        generated_conditioning_gain=conditioning_gain(model, generated, seed=seed),
        generated_levels=level_stats([trial.codes_KT for trial in generated], levels),
    )


def generate_with_presets(model: TTS, presets: Mapping[str, Tensor], seed: int) -> list[Trial]:
    """Speech of the model itself with each preset [N, D]; it must find this likely."""
    requests = [
        SynthesisRequest(name, voice_ND, TEXTS[i % len(TEXTS)], seed + i)
        for i, (name, voice_ND) in enumerate(presets.items())
    ]
    return [
        Trial(each.speaker, each.voice_ND, each.text, made.codes_KT.cpu())
        for each, made in zip(requests, generate_codes(model, requests), strict=True)
        if made.codes_KT.shape[1] > 1
    ]
