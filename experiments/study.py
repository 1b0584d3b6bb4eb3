"""Recipes of encoder training compared: the same minutes of CPU for each, one table.

    python experiments/study.py train --speech MANIFEST -o OUT --minutes 6 [--seed 0 1 2] CONFIG...
    python experiments/study.py measure --speech MANIFEST -o OUT --oracle ORACLE
    python experiments/study.py table   -o OUT

`train` times a step and the labeling of a clip, sets the number of steps so that the run takes the
minutes, and scales all settings in steps with it. Runs are in OUT/NAME-SEED, and the costs of a
recipe in OUT/plans; a second call continues an interrupted study. `measure` needs the oracle and
test speakers.
"""

import argparse
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from voxclone.codec.model import Codec
from voxclone.config import SettingsT, load_settings
from voxclone.device import pick_device
from voxclone.errors import EXIT_OK
from voxclone.evaluate.checks import run_checks
from voxclone.evaluate.cloning import CloningPlan, evaluate_cloning
from voxclone.evaluate.diagnosis import diagnose
from voxclone.evaluate.encoder import evaluate_encoder
from voxclone.evaluate.metric_models import MetricModels
from voxclone.evaluate.report.tables import look_up
from voxclone.evaluate.speechset import SpeechSet, list_clips, load_speech, select_clips
from voxclone.models.ctc_asr import load_packaged_recognizer
from voxclone.models.speaker_encoder import Ge2eEmbedder
from voxclone.models.transcribers import CharacterTranscriber
from voxclone.release.encoder_file import open_codec
from voxclone.release.release import Release
from voxclone.train import encoder
from voxclone.train.encoder import ENCODER_FILE
from voxclone.train.encoder_config import EncoderConfig
from voxclone.train.material import Inputs
from voxclone.tts.tts import TTS
from voxclone.voice.presets import Inversion, preset_inversions

PROBE_STEPS = 12
PROBE_CLIPS = 12
VALIDATIONS = 8

GAIN = "diagnosis.language_model.conditioning_gain"
# Heading, path in the measurements, format.
COLUMNS = (
    ("semantic", "encoder.oracle.real.semantic.mean", "{:.3f}"),
    ("exact", "encoder.oracle.real.exact.mean", "{:.3f}"),
    ("within one", "encoder.oracle.real.within_one.mean", "{:.3f}"),
    ("decoded: semantic", "encoder.oracle.decoded.semantic.mean", "{:.3f}"),
    ("decoded: within one", "encoder.oracle.decoded.within_one.mean", "{:.3f}"),
    ("mel", "diagnosis.round_trip.mel_distance.mean", "{:.3f}"),
    ("perplexity", "diagnosis.semantic_codes.perplexity", "{:.0f}"),
    ("extreme", "diagnosis.levels.encoder.extreme", "{:.1%}"),
    ("Mahalanobis", "diagnosis.levels.mahalanobis", "{:.2f}"),
    ("NLL", f"{GAIN}.semantic_nll.mean", "{:.2f}"),
    ("gain, semantic", f"{GAIN}.semantic_gain.mean", "{:.3f}"),
    ("gain, flow", f"{GAIN}.flow_gain.mean", "{:.4f}"),
    ("SIM, same speaker", "voices.same_speaker", "{:.3f}"),
    ("minus cross-speaker", "voices.difference", "{:.3f}"),
    ("CER", "voices.cer", "{:.2f}"),
    ("checks", "checks", "{}"),
)


def scaled(config: EncoderConfig, steps: int) -> EncoderConfig:
    """The recipe with so many steps."""
    share = steps / config.run.steps

    def to(step: int) -> int:
        return round(step * share)

    def updated(group: SettingsT, **values: object) -> SettingsT:
        return group.model_copy(update=values)

    labels = config.pseudo_labels
    label_steps = tuple(to(step) for step in labels.label_steps)
    return updated(
        config,
        pseudo_labels=updated(labels, label_steps=label_steps, clips=max(1, to(labels.clips))),
        real_from=to(config.real_from),
        discriminators=updated(config.discriminators, start=to(config.discriminators.start)),
        speaker_loss=updated(config.speaker_loss, start=to(config.speaker_loss.start)),
        optimizer=updated(config.optimizer, warmup_steps=max(1, to(config.optimizer.warmup_steps))),
        run=updated(
            config.run,
            steps=steps,
            validate_every=max(1, steps // VALIDATIONS),
            save_every=max(50, steps // 4),
            collapse_check_from=None,  # a row that fails is a row
        ),
    )


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU of a step with every loss but the speaker loss, of one with the speaker loss
    at its rate, and of labeling a clip."""

    step: float
    cloning: float
    clip: float

    def steps(self, config: EncoderConfig, minutes: float) -> int:
        """The number of steps that takes so many minutes."""
        whole, labels = config.run.steps, config.pseudo_labels
        used = bool(config.weights.speaker_contrastive)
        cloning = max(0, whole - config.speaker_loss.start) / whole if used else 0.0
        labeling = len(labels.label_steps) * labels.clips * self.clip / whole
        step = (1 - cloning) * self.step + cloning * self.cloning + labeling
        return round(60 * minutes / step)


def cost(config: EncoderConfig, inputs: Inputs, out: Path) -> Cost:
    """Cost of the recipe, measured on a few steps of each kind."""
    weights = config.weights
    first = max(config.real_from, config.discriminators.start)
    last = first + PROBE_STEPS
    steps = (first,) if weights.pseudo_label else ()
    labels = config.pseudo_labels.model_copy(update={"label_steps": steps, "clips": PROBE_CLIPS})
    loss = config.speaker_loss.model_copy(update={"start": last})
    probed = config.model_copy(update={"pseudo_labels": labels, "speaker_loss": loss})
    device = pick_device(inputs.device)
    training = encoder.prepare(probed, inputs, device, out, Console(quiet=True))
    spent = []
    for step in range(first, last + (PROBE_STEPS if weights.speaker_contrastive else 0)):
        begun = time.process_time()
        training.train_step(step)
        spent.append(time.process_time() - begun)
    usual, whole = spent[2:PROBE_STEPS], spent[PROBE_STEPS:] or spent[2:]
    step_s = sum(usual) / len(usual)
    clip_s = max(0.0, spent[0] - step_s) / PROBE_CLIPS if weights.pseudo_label else 0.0
    return Cost(step_s, sum(whole) / len(whole), clip_s)


def link_shared(shared: Path, folder: Path) -> None:
    """Link the packed speech and the pairs, which all runs share, into a run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("speech", "pairs"):
        (shared / part).mkdir(parents=True, exist_ok=True)
        if not (folder / part).exists():
            (folder / part).symlink_to((shared / part).resolve())


def planned(config: EncoderConfig, inputs: Inputs, known: Path, minutes: float) -> int:
    """The number of steps that takes so many minutes. The cost of a recipe is measured once for all
    seeds, and again after a change."""
    run = config.run.model_copy(update={"seed": 0})
    recipe = config.model_copy(update={"run": run}).model_dump(mode="json")
    stored = json.loads(known.read_text()) if known.exists() else {}
    if stored.get("recipe") != recipe:
        probe = known.parent / known.stem
        shutil.rmtree(probe / "labels", ignore_errors=True)  # stored labels cost nothing
        stored = {"recipe": recipe, "cost": asdict(cost(config, inputs, probe))}
        known.write_text(json.dumps(stored))
    return Cost(**stored["cost"]).steps(config, minutes)


def train(options: argparse.Namespace) -> None:
    """Train every config with every seed."""
    shared, plans = options.out / "shared", options.out / "plans"
    for seed in options.seed:
        for path in options.config:
            folder = options.out / f"{path.stem}-{seed}"
            spent = folder / "spent.json"
            if spent.exists():
                continue
            config = load_settings(EncoderConfig, path, [f"run.seed={seed}"])
            inputs = Inputs(speech=options.speech, device="cpu")
            link_shared(shared, folder)
            link_shared(shared, plans / path.stem)
            steps = planned(config, inputs, plans / f"{path.stem}.json", options.minutes)
            begun = time.process_time()
            code = encoder.main(scaled(config, steps), inputs, folder, Console(), resume=True)
            if code != EXIT_OK:
                raise SystemExit(code)
            minutes = (time.process_time() - begun) / 60
            spent.write_text(json.dumps({"minutes": minutes, "steps": steps}))
            print(f"{folder.name}: {steps} steps, {minutes:.1f} minutes of CPU", flush=True)


@dataclass(frozen=True)
class Bench:
    """What all encoders are measured with."""

    release: Release
    oracle: Codec
    speech: SpeechSet
    inversions: dict[str, Inversion]
    plan: CloningPlan
    models: MetricModels


def measure_encoder(bench: Bench, path: Path) -> dict[str, Any]:
    """All measurements of the encoder in a file."""
    release, speech = bench.release, bench.speech
    codec = open_codec(release, path)
    model = TTS.load(release, codec=codec)
    diagnosis = diagnose(
        release, codec, speech, encoder="", model=model, inversions=bench.inversions
    )
    scores = evaluate_cloning(
        release, codec, model, speech, bench.models, bench.plan, name=""
    ).scores[0]
    (similarity,), (cer,) = scores.similarity.values(), scores.cer.values()
    assert similarity.difference is not None  # of several speakers
    return {
        "diagnosis": diagnosis.to_json(),
        "encoder": evaluate_encoder(release, codec, speech, bench.oracle, name="").to_json(),
        "checks": run_checks(diagnosis).summary,
        "voices": {
            "same_speaker": similarity.same_speaker.mean,
            "difference": similarity.difference.mean,
            "cer": cer,
        },
    }


def measure(options: argparse.Namespace) -> None:
    """Measure the oracle and every encoder of the study."""
    release = Release.open(options.model)
    clips = [clip for clip in list_clips(options.speech) if clip.split == options.split]
    transcriber = CharacterTranscriber(load_packaged_recognizer())
    bench = Bench(
        release,
        open_codec(release, options.oracle),
        load_speech(select_clips(clips, options.seconds)),
        preset_inversions(release),
        CloningPlan((options.length,), options.sentences, (0,), options.cfg),
        MetricModels([Ge2eEmbedder.load()], [transcriber]),
    )
    paths = {"oracle": options.oracle}
    paths |= {p.parent.name: p for p in sorted(options.out.glob(f"*-*/{ENCODER_FILE}"))}
    part, parts = (int(each) for each in options.part.split("/"))
    for name, path in list(paths.items())[part::parts]:
        kept = options.out / f"{name}.json"
        if kept.exists():
            continue
        measured = measure_encoder(bench, path)
        kept.write_text(json.dumps(measured, indent=1))
        print(f"{name}: {measured['checks']}", flush=True)


def table(options: argparse.Namespace) -> None:
    """Print a row for each recipe: means over seeds, with the smallest and the largest of
    several."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(options.out.glob("*.json")):
        name = path.stem.rpartition("-")[0] or path.stem
        rows.setdefault(name, []).append(json.loads(path.read_text()))
    print("| recipe | seeds | " + " | ".join(heading for heading, *_ in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for name, found in rows.items():
        cells = []
        for _, key, form in COLUMNS:
            values = [look_up(each, key) for each in found]
            if any(isinstance(value, str) or value is None for value in values):
                cells.append("; ".join(sorted({str(value) for value in values})))
                continue
            cell = form.format(sum(values) / len(values))
            if len(values) > 1:
                cell += f" ({form.format(min(values))} to {form.format(max(values))})"
            cells.append(cell)
        print(f"| {name} | {len(found)} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    trained = commands.add_parser("train")
    trained.add_argument("config", nargs="+", type=Path)
    trained.add_argument("--minutes", type=float, default=6.0)
    trained.add_argument("--seed", type=int, nargs="+", default=[0])
    trained.set_defaults(run=train)
    measured = commands.add_parser("measure")
    measured.add_argument("--model", default="mini")
    measured.add_argument("--split", default="test")
    measured.add_argument("--seconds", type=float, default=150.0)
    measured.add_argument("--length", type=float, default=8.0)
    measured.add_argument("--sentences", type=int, default=2)
    measured.add_argument("--cfg", type=float, default=1.2)
    measured.add_argument("--oracle", required=True, type=Path)
    measured.add_argument("--part", default="0/1", help="process I of N, as I/N")
    measured.set_defaults(run=measure)
    for each in (trained, measured):
        each.add_argument("--speech", required=True, type=Path)
    shown = commands.add_parser("table")
    shown.set_defaults(run=table)
    for each in (trained, measured, shown):
        each.add_argument("-o", "--out", required=True, type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.run(options)


if __name__ == "__main__":
    main()
