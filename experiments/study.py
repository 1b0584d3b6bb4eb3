"""Recipes of recovery at equal footing: the same minutes of CPU for each, one table.

    python experiments/study.py train --speech MANIFEST -o OUT --minutes 6 [--seed 0 1 2] CONFIG...
    python experiments/study.py measure --speech MANIFEST -o OUT --oracle ORACLE
    python experiments/study.py table   -o OUT

`train` finds out how long a step and a labelling take, sets the steps so that the run takes the
minutes, and scales everything that is given in steps along with them. Runs lie in OUT/NAME-SEED; a
study that was stopped goes on from there; the costs of a recipe are in OUT/plans. `measure` needs
the oracle and is for test speakers.
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
from voxclone.evaluate.checks import verdict
from voxclone.evaluate.cloning import VoicePlan, evaluate_voices
from voxclone.evaluate.diagnosis import diagnose
from voxclone.evaluate.encoder import evaluate_encoder
from voxclone.evaluate.report.tables import look_up
from voxclone.evaluate.speechset import SpeechSet, choose, list_clips, load_speech
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
from voxclone.voice.presets import preset_inversions

PROBE_STEPS = 12
PROBE_CLIPS = 12
VALIDATIONS = 8

# Heading, place in what was measured, form.
COLUMNS = (
    ("semantic", "encoder.oracle.real.semantic.mean", "{:.3f}"),
    ("exact", "encoder.oracle.real.exact.mean", "{:.3f}"),
    ("within one", "encoder.oracle.real.within_one.mean", "{:.3f}"),
    ("decoded: semantic", "encoder.oracle.decoded.semantic.mean", "{:.3f}"),
    ("decoded: within one", "encoder.oracle.decoded.within_one.mean", "{:.3f}"),
    ("mel", "diagnosis.passage.mel.mean", "{:.3f}"),
    ("perplexity", "diagnosis.book.perplexity", "{:.0f}"),
    ("extreme", "diagnosis.levels.own.extreme", "{:.1%}"),
    ("strangeness", "diagnosis.levels.strangeness", "{:.2f}"),
    ("NLL", "diagnosis.acceptance.semantic.mean", "{:.2f}"),
    ("gain, semantic", "diagnosis.acceptance.semantic_gain.mean", "{:.3f}"),
    ("gain, flow", "diagnosis.acceptance.flow_gain.mean", "{:.4f}"),
    ("likeness", "voices.own", "{:.3f}"),
    ("own - others'", "voices.gain", "{:.3f}"),
    ("CER", "voices.cer", "{:.2f}"),
    ("verdict", "verdict", "{}"),
)


def scaled(config: EncoderConfig, steps: int) -> EncoderConfig:
    """The same recipe in so many steps."""
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
            stop_on_collapse=False,  # a row that fails is a row
        ),
    )


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU of a step with everything switched on but the speaker loss, of one with it now
    and then (`speaker_loss.every`), and of labeling a clip."""

    step: float
    cloning: float
    clip: float

    def steps(self, config: EncoderConfig, minutes: float) -> int:
        """Steps of the recipe that take so many minutes."""
        whole, labels = config.run.steps, config.pseudo_labels
        used = bool(config.weights.speaker_contrastive)
        cloning = max(0, whole - config.speaker_loss.start) / whole if used else 0.0
        labeling = len(labels.label_steps) * labels.clips * self.clip / whole
        step = (1 - cloning) * self.step + cloning * self.cloning + labeling
        return round(60 * minutes / step)


def cost(config: EncoderConfig, inputs: Inputs, out: Path) -> Cost:
    """Cost of the recipe, by a few steps of each kind."""
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


def share(shared: Path, folder: Path) -> None:
    """Let a run find the packed speech and the pairs of all."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("speech", "pairs"):
        (shared / part).mkdir(parents=True, exist_ok=True)
        if not (folder / part).exists():
            (folder / part).symlink_to((shared / part).resolve())


def planned(config: EncoderConfig, inputs: Inputs, known: Path, minutes: float) -> int:
    """Steps that take so many minutes. What a step costs is found out once for a recipe and all its
    seeds, and again if the recipe has changed."""
    run = config.run.model_copy(update={"seed": 0})
    recipe = config.model_copy(update={"run": run}).model_dump(mode="json")
    stored = json.loads(known.read_text()) if known.exists() else {}
    if stored.get("recipe") != recipe:
        probe = known.parent / known.stem
        shutil.rmtree(probe / "labels", ignore_errors=True)  # they would be read, and cost nothing
        stored = {"recipe": recipe, "cost": asdict(cost(config, inputs, probe))}
        known.write_text(json.dumps(stored))
    return Cost(**stored["cost"]).steps(config, minutes)


def train(given: argparse.Namespace) -> None:
    """Every config with every seed, one after the other."""
    shared, plans = given.out / "shared", given.out / "plans"
    for seed in given.seed:
        for path in given.config:
            folder = given.out / f"{path.stem}-{seed}"
            spent = folder / "spent.json"
            if spent.exists():
                continue
            config = load_settings(EncoderConfig, path, [f"run.seed={seed}"])
            inputs = Inputs(speech=given.speech, device="cpu")
            share(shared, folder)
            share(shared, plans / path.stem)
            steps = planned(config, inputs, plans / f"{path.stem}.json", given.minutes)
            begun = time.process_time()
            code = encoder.main(scaled(config, steps), inputs, folder, Console(), resume=True)
            if code != EXIT_OK:
                raise SystemExit(code)
            minutes = (time.process_time() - begun) / 60
            spent.write_text(json.dumps({"minutes": minutes, "steps": steps}))
            print(f"{folder.name}: {steps} steps, {minutes:.1f} minutes of CPU", flush=True)


def figures_of(
    release: Release,
    path: Path,
    oracle: Codec,
    speech: SpeechSet,
    inversions: Any,
    plan: VoicePlan,
    embedder: Ge2eEmbedder,
    transcriber: CharacterTranscriber,
) -> dict[str, Any]:
    """Everything of one encoder."""
    codec = open_codec(release, path)
    model = TTS.load(release, codec=codec)
    found = diagnose(release, codec, speech, encoder="", model=model, inversions=inversions)
    voices = evaluate_voices(
        release, codec, model, speech, [embedder], [transcriber], plan, name=""
    ).scores[0]
    judged = verdict(found)
    return {
        "diagnosis": found.to_json(),
        "encoder": evaluate_encoder(release, codec, speech, oracle, name="").to_json(),
        "verdict": judged.summary,
        "voices": {
            "own": voices.likeness[embedder.name]["matched"].mean,
            "gain": voices.likeness[embedder.name]["gain"].mean,
            "cer": voices.cer[transcriber.name],
        },
    }


def measure(given: argparse.Namespace) -> None:
    """Every encoder of the study, and the oracle."""
    release = Release.open(given.model)
    clips = [clip for clip in list_clips(given.speech) if clip.split == given.split]
    speech = load_speech(choose(clips, given.seconds))
    inversions = preset_inversions(release)
    oracle, embedder = open_codec(release, given.oracle), Ge2eEmbedder.load()
    transcriber = CharacterTranscriber(load_packaged_recognizer())
    plan = VoicePlan((given.length,), given.sentences, (0,), given.cfg)
    paths = {"oracle": given.oracle}
    paths |= {p.parent.name: p for p in sorted(given.out.glob(f"*-*/{ENCODER_FILE}"))}
    part, parts = (int(each) for each in given.part.split("/"))
    for name, path in list(paths.items())[part::parts]:
        kept = given.out / f"{name}.json"
        if kept.exists():
            continue
        figures = figures_of(release, path, oracle, speech, inversions, plan, embedder, transcriber)
        kept.write_text(json.dumps(figures, indent=1))
        print(f"{name}: {figures['verdict']}", flush=True)


def table(given: argparse.Namespace) -> None:
    """A row for each recipe: means over seeds, and the smallest and largest where there are
    several."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(given.out.glob("*.json")):
        name = path.stem.rpartition("-")[0] or path.stem
        rows.setdefault(name, []).append(json.loads(path.read_text()))
    print("| recipe | seeds | " + " | ".join(heading for heading, *_ in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for name, found in rows.items():
        cells = []
        for _, place, form in COLUMNS:
            values = [look_up(each, place) for each in found]
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
    measured.add_argument("--part", default="0/1", help="this of so many processes")
    measured.set_defaults(run=measure)
    for each in (trained, measured):
        each.add_argument("--speech", required=True, type=Path)
    shown = commands.add_parser("table")
    shown.set_defaults(run=table)
    for each in (trained, measured, shown):
        each.add_argument("-o", "--out", required=True, type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    given.run(given)


if __name__ == "__main__":
    main()
