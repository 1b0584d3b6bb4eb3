"""The stages that measure the encoder: `diagnose` and `evaluate`.

Shapes: S samples.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from voxclone.audio.writing import write_wave
from voxclone.evaluate.checks import checked_diagnosis
from voxclone.evaluate.cloning import CloningPlan, evaluate_cloning, evaluate_presets
from voxclone.evaluate.metric_models import MetricModels
from voxclone.evaluate.networks import make_models
from voxclone.evaluate.reconstruction import VoxtralReconstructor
from voxclone.evaluate.report.files import SHOWN_CLIPS, reconstructions, write_report
from voxclone.evaluate.report.page import AudioComparison
from voxclone.evaluate.speechset import SpeechSet, open_speech
from voxclone.recover.stages import REPORT, Context, Results, best_encoder, speech_manifest
from voxclone.recover.store import Inputs, Result, hashes
from voxclone.recover.survey import TRAIN
from voxclone.release.encoder_file import open_codec
from voxclone.tts.tts import TTS

DIAGNOSED, CLONED = 300.0, 600.0
"""Seconds of speech that are read."""
AUDIO = "audio.json"


def measured_inputs(context: Context, results: Results) -> Inputs | str:
    """Of both stages: release, encoder and speech."""
    return Inputs(
        {
            "model": context.model,
            "encoder": results["train"].result.files,
            "speech": results["validate"].result.values["content"],
        }
    )


def diagnose(context: Context, results: Results, folder: Path) -> Result:
    release, track = context.release, context.progress.track
    codec = open_codec(release, best_encoder(results))
    split = results["validate"].result.values["split"] or TRAIN
    speech = open_speech(speech_manifest(results), split, DIAGNOSED, track)
    report = checked_diagnosis(
        release, codec, speech, names=(context.options.model, str(best_encoder(results))),
        model=TTS.load(release, device=context.device), track=track,
    )  # fmt: skip
    reconstruct = VoxtralReconstructor(codec, context.options.model).reconstruct
    write_report(report, reconstructions(reconstruct, speech, codec.sampling_rate), folder)
    failed = report["checks"]["failed"]
    for each in failed:
        context.progress.say(
            f"  {each['name']}: {each['meaning']} ({each['measured']}.) {each['remedy']}"
        )
    why = report["checks"]["summary"] if failed else None
    return Result({}, hashes(folder, [REPORT]), failed=why)


def evaluate_inputs(context: Context, results: Results) -> Inputs | str:
    """Nothing is evaluated where no speaker was set aside."""
    values = results["validate"].result.values
    if values["split"] is None:
        return f"no voices can be evaluated: {values['why']}"
    return measured_inputs(context, results)


def evaluate(context: Context, results: Results, folder: Path) -> Result:
    release, track = context.release, context.progress.track
    values = results["validate"].result.values
    codec = open_codec(release, best_encoder(results))
    tts = TTS.load(release, device=context.device)
    speech = open_speech(speech_manifest(results), values["split"], CLONED, track)
    models, note = metric_models(speech)
    plan = CloningPlan(lengths=(values["reference"],))
    report = evaluate_cloning(
        release, codec, tts, speech, models, plan, name=str(best_encoder(results)), track=track
    )
    missing = report.missing | note
    if not report.scores:
        return Result({"missing": missing}, failed=f"no voice was measured: {missing}")
    texts = [each.clip.text for each in speech.utterances if each.clip.text]
    presets = evaluate_presets(release, codec, tts, models, plan, texts, missing, track)
    reconstruct = VoxtralReconstructor(codec, context.options.model).reconstruct
    players = [
        AudioComparison(
            f"{each.speaker}: {each.text}",
            {
                "recording": each.reference_S,
                "decoded": reconstruct(each.reference_S),
                "clone": each.cloned_S,
            },
        )
        for each in report.examples[:SHOWN_CLIPS]
    ]
    write_report(report.to_json() | {"missing": missing}, players, folder)
    names = [REPORT, AUDIO, *keep_audio(players, folder)]
    scores = asdict(report.scores[0])
    values = {"scores": scores, "presets": asdict(presets), "missing": missing}
    return Result(values, hashes(folder, names), failed=failed_gate(scores))


def metric_models(speech: SpeechSet) -> tuple[MetricModels, dict[str, str]]:
    """The packaged networks, without the recognizer for speech that it does not know; and why."""
    models = make_models(None, None, False)
    languages = {each.clip.language or "en" for each in speech.utterances if each.clip.text}
    if not languages <= {"en"}:
        why = f"the packaged recognizer knows English alone, and texts are {sorted(languages)}"
        return replace(models, transcribers=()), {"error rates": why}
    return models, {}


def failed_gate(scores: dict[str, Any]) -> str | None:
    """Why clones are not good enough to make a release: they are no more similar to their own
    speaker than to others."""
    for name, found in scores["similarity"].items():
        difference = found["difference"]
        if difference is None or difference["low"] is None or difference["low"] <= 0:
            mean = "not measured" if difference is None else f"{difference['mean']:.3f}"
            return (
                f"Clones are no more similar to their own speaker than to others (difference of "
                f"similarities by {name}: {mean}; its interval must lie above 0)."
            )
    return None


def keep_audio(players: list[AudioComparison], folder: Path) -> list[str]:
    """Write the clips of players, and the list of them; returns the names of the clips."""
    rows: list[dict[str, Any]] = []
    names: list[str] = []
    for number, player in enumerate(players):
        files = {}
        for label, wave_S in player.waves.items():
            files[label] = f"{number}-{label}.flac"
            write_wave(folder / files[label], wave_S.numpy())
        rows.append({"name": player.name, "files": files})
        names += files.values()
    (folder / AUDIO).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return names
