"""Figures of the mini release on speakers that nobody trained on: what `docs/LOG.md` quotes.

Shapes: S samples, K code books, T frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recipes.mini_release.gap import gap_accuracy
from voxclone.codec.model import Codec
from voxclone.evaluate.cloning import (
    CloningPlan,
    CloningReport,
    evaluate_cloning,
    score_cloning,
)
from voxclone.evaluate.encoder import evaluate_encoder
from voxclone.evaluate.metric_models import MetricModels
from voxclone.evaluate.progress import Track, untracked
from voxclone.evaluate.reconstruction import VoxtralReconstructor, evaluate_codec
from voxclone.evaluate.speechset import SpeechSet
from voxclone.evaluate.synthesis import SynthesisRequest, synthesize
from voxclone.mini.oracle import ASSETS, oracle_codec
from voxclone.release.encoder_file import open_codec
from voxclone.release.release import Release, load_preset, preset_names
from voxclone.tts.tts import TTS
from voxclone.voice.presets import preset_codes


@dataclass(frozen=True)
class ReportSizes:
    """How much is measured."""

    lengths: tuple[float, ...] = (8.0, 14.0)
    sentences: int = 3
    seeds: tuple[int, ...] = (0, 1)
    cfg: float = 1.2
    preset_sentences: int = 2


def report(
    release: Release,
    speech: SpeechSet,
    encoders: Mapping[str, Path],
    models: MetricModels,
    *,
    assets: Path = ASSETS,
    sizes: ReportSizes = ReportSizes(),
    track: Track = untracked,
) -> dict[str, Any]:
    """Reports by name: the codec with the oracle, presets, and codes and clones of the oracle and
    of each encoder."""
    plan = CloningPlan(sizes.lengths, sizes.sentences, sizes.seeds, sizes.cfg)
    oracle = oracle_codec(release, assets)
    model = TTS.load(release, codec=oracle)
    codec = evaluate_codec(
        VoxtralReconstructor(oracle, "with the oracle"), speech, models, track=track
    )
    found: dict[str, Any] = {
        "codec": codec.to_json() | {"gap_accuracy": _gap(oracle, speech)},
        "presets": evaluate_presets(model, release, speech, models, sizes),
    }
    for name, path in {"oracle": None, **encoders}.items():
        own = oracle if path is None else open_codec(release, path)
        codes = evaluate_encoder(release, own, speech, oracle, name=name, track=track)
        found[f"codes of {name}"] = codes.to_json()
        voices = evaluate_cloning(release, own, model, speech, models, plan, name=name, track=track)
        found[f"voices of {name}"] = voices.to_json()
    return found


def evaluate_presets(
    model: TTS, release: Release, speech: SpeechSet, models: MetricModels, sizes: ReportSizes
) -> dict[str, Any]:
    """Speech of the presets, against the preset's own decoded codes."""
    codes = preset_codes(release).codes
    texts = _texts(speech)
    requests, references = [], {}
    for number, name in enumerate(preset_names(release)):
        with torch.inference_mode():
            references[name] = model.codec.decode(codes[name][None])[0]
        choice = texts.get(name[:2]) or [text for each in texts.values() for text in each]
        for turn in range(sizes.preset_sentences):
            text = choice[(number * 7 + turn) * 13 % len(choice)]
            requests.append(SynthesisRequest(name, load_preset(release, name), text, turn))
    syntheses = synthesize(model, requests, cfg=sizes.cfg)
    missing: dict[str, str] = {}
    seconds = sum(codes_KT.shape[1] for codes_KT in codes.values()) / len(codes)
    scores = score_cloning(seconds / model.codec.frame_rate, syntheses, references, models, missing)
    return CloningReport("presets", [scores], missing, []).to_json()


def _gap(oracle: Codec, speech: SpeechSet) -> float:
    """Share of crops in which a small classifier tells decoded from real speech."""
    waves = [each.wave_S for each in speech.utterances]
    with torch.inference_mode():
        decoded = [oracle.decode(oracle.encode(wave_S[None]))[0] for wave_S in waves]
    return gap_accuracy(waves, decoded)


def _texts(speech: SpeechSet) -> dict[str, list[str]]:
    """Transcripts by language, of lengths that are spoken in two to six seconds."""
    texts: dict[str, list[str]] = {"en": ["It was a very good day for all of us."]}
    for each in speech.utterances:
        clip = each.clip
        if clip.text and 20 <= len(clip.text) <= 70 and clip.language:
            texts.setdefault(clip.language, []).append(clip.text)
    return texts
