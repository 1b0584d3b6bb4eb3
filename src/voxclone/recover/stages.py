"""The stages of a recovery. Each calls what the command of its name calls.

A stage has inputs, by which its result is kept (`store`), and a function that makes the result in a
folder. What a gate refuses is a result, too: it says why.

Shapes: S samples.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from voxclone.config import flatten, load_settings
from voxclone.data.clean import CleanSettings
from voxclone.data.pairs import FACTS, TEXTS, PairSettings, read_texts, speak_pairs
from voxclone.data.prepare import Sources, prepare_sources
from voxclone.data.prepare_report import MANIFEST
from voxclone.data.validate import validate as check_manifest
from voxclone.errors import EXIT_OK, QualityError
from voxclone.evaluate.report.files import write_report
from voxclone.io import hash_file
from voxclone.recover.identity import digest_of, folder_identity
from voxclone.recover.options import Options
from voxclone.recover.progress import RunProgress
from voxclone.recover.recipe import Recipe, choose_recipe
from voxclone.recover.split import set_aside
from voxclone.recover.store import Inputs, Result, hashes
from voxclone.recover.survey import Survey, survey_manifest
from voxclone.recover.texts import failed_texts
from voxclone.release.release import Release
from voxclone.spec import FRAME_SIZE
from voxclone.train import encoder
from voxclone.train.checkpoint import FREE
from voxclone.train.loop import EXIT_INTERRUPTED
from voxclone.train.material import FRESH
from voxclone.train.material import Inputs as TrainingInputs
from voxclone.tts.tts import TTS

SPEECH = "speech.jsonl"
REPORT = "report.json"


class Interrupted(Exception):
    """A signal has ended the training; its steps are saved."""


@dataclass(frozen=True)
class Context:
    """What all stages know: options, the release and SHA-256 of its files, the device, whether the
    folder of the run was moved since it began, and where progress is shown."""

    options: Options
    release: Release
    model: str
    device: torch.device
    moved: bool
    show: RunProgress | None

    @property
    def run(self) -> Path:
        return self.options.out

    @property
    def progress(self) -> RunProgress:
        """Where stages show how far they are; only while they run."""
        assert self.show is not None
        return self.show


@dataclass(frozen=True)
class Done:
    """A stage that has ended: its folder and its result."""

    folder: Path
    result: Result


Results = Mapping[str, Done]


@dataclass(frozen=True)
class Stage:
    """`inputs` gives what a result depends on, or a sentence why there is nothing to do; `make`
    makes it in a folder."""

    inputs: Callable[[Context, Results], Inputs | str]
    make: Callable[[Context, Results, Path], Result]


def is_source(options: Options) -> bool:
    """Whether the speech must be prepared: it is a folder, and no manifest."""
    return options.speech.is_dir()


def prepare_inputs(context: Context, results: Results) -> Inputs | str:
    if not is_source(context.options):
        return "a manifest was given"
    options, settings = context.options, load_settings(CleanSettings)
    return Inputs(
        {
            "recordings": folder_identity(options.speech),
            "corpus": options.corpus,
            "license": options.license,
            "settings": settings.model_dump(mode="json"),
        }
    )


def prepare(context: Context, results: Results, folder: Path) -> Result:
    options, done = context.options, [0]

    def show(more: int, total: int) -> None:
        done[0] += more
        context.progress.show(done[0] / max(1, total), f"{done[0]:,} of {total:,} clips")

    sources = Sources((options.speech,), options.corpus, None, options.license)
    report = prepare_sources(
        sources, folder / "speech", load_settings(CleanSettings),
        jobs=os.cpu_count() or 1, progress=show,
    )  # fmt: skip
    assert report is not None  # which a shard alone has not
    kept = {key: report[key] for key in ("clips", "hours", "speakers")}
    dropped = {rule: each["clips"] for rule, each in report["dropped"].items()}
    return Result(kept | {"dropped": dropped}, hashes(folder, [f"speech/{MANIFEST}"]))


def source_manifest(context: Context, results: Results) -> Path:
    """The manifest of all speech."""
    if is_source(context.options):
        return results["prepare"].folder / "speech" / MANIFEST
    return context.options.speech


def validate_inputs(context: Context, results: Results) -> Inputs | str:
    return Inputs({"speech": hash_file(source_manifest(context, results))})


def validate(context: Context, results: Results, folder: Path) -> Result:
    manifest, progress = source_manifest(context, results), context.progress
    report = check_manifest(manifest, frame_size=FRAME_SIZE)
    values: dict[str, Any] = {}
    if report["checks"]["passed"]:
        test = set_aside(manifest, folder / SPEECH)
        report = check_manifest(folder / SPEECH, frame_size=FRAME_SIZE, headers=False)
        content = digest_of({"speech": hash_file(manifest), "split": test.split})
        values = {
            "split": test.split, "reference": test.seconds, "why": test.why, "content": content,
        }  # fmt: skip
    write_report(report, [], folder)
    failed = [each for each in report["checks"]["failed"] if each["blocking"]]
    for each in report["checks"]["failed"]:
        progress.say(f"  {each['name']}: {each['meaning']} ({each['measured']}.) {each['remedy']}")
    if failed:
        first = failed[0]
        why = f"{first['name']}: {first['meaning']} ({first['measured']}.) {first['remedy']}"
        return Result(values, hashes(folder, [REPORT]), failed=why)
    mismatch = failed_texts(folder / SPEECH)
    if mismatch is not None and mismatch.certain:
        return Result(values, hashes(folder, [REPORT, SPEECH]), failed=mismatch.sentence)
    if mismatch is not None:
        progress.say(f"  If the speech is English: {mismatch.sentence}")
    return Result(values, hashes(folder, [REPORT, SPEECH]))


def speech_manifest(results: Results) -> Path:
    """The manifest with its splits."""
    return results["validate"].folder / SPEECH


def training_recipe(context: Context, results: Results) -> tuple[Recipe, Survey]:
    """The config of the training on what is there, and what is there."""
    speech = survey_manifest(speech_manifest(results))
    return choose_recipe(context.release, speech, context.options.overrides), speech


def pairs_inputs(context: Context, results: Results) -> Inputs | str:
    pairs = training_recipe(context, results)[0].config.pairs
    if pairs.folder is not None:
        return f"those of {pairs.folder} are used"
    if not pairs.minutes:
        return "the config asks for none"
    settings, texts = PairSettings().model_dump(mode="json"), {"texts": hash_file(TEXTS)}
    return Inputs(
        {"model": context.model, "settings": settings} | texts, {"minutes": pairs.minutes}
    )


def pairs(context: Context, results: Results, folder: Path) -> Result:
    release, progress = context.release, context.progress
    minutes = training_recipe(context, results)[0].config.pairs.minutes
    made = speak_pairs(
        release, TTS.load(release, device=context.device), read_texts(TEXTS),
        PairSettings(), minutes, folder / "pairs",
        progress=lambda done: progress.show(
            min(1.0, done / minutes), f"{done:.1f} of {minutes:g} min"
        ),
    )  # fmt: skip
    names = [FACTS, *(path.name for path in (folder / "pairs").glob("batch-*.safetensors"))]
    return Result(
        {"utterances": len(made), "minutes": minutes},
        hashes(folder, [f"pairs/{name}" for name in sorted(names)]),
    )


def train_inputs(context: Context, results: Results) -> Inputs | str:
    """The hashes of speech and pairs stand for their paths."""
    config = training_recipe(context, results)[0].config
    values = flatten(config.model_dump(mode="json"))
    made = results["pairs"].result.files
    limits = {key: value for key, value in values.items() if key in FREE}
    others = {key: value for key, value in values.items() if key not in FREE}
    speech = results["validate"].result.values["content"]
    identity = {"model": context.model, "speech": speech, "config": others, "pairs": made}
    return Inputs(identity, limits)


def train(context: Context, results: Results, folder: Path) -> Result:
    recipe, _ = training_recipe(context, results)
    config, progress, out = recipe.config, context.progress, folder / "run"
    if not results["pairs"].result.skipped:
        made = results["pairs"].folder / "pairs"
        config = config.model_copy(
            update={"pairs": config.pairs.model_copy(update={"folder": made})}
        )
    steps = config.run.steps
    inputs = TrainingInputs(
        str(context.release.path), speech_manifest(results), FRESH, str(context.device)
    )
    failed = None
    try:
        code = encoder.main(
            config, inputs, out, progress.console(), resume=True, changed=context.moved,
            on_step=lambda step: progress.show(step / steps, f"step {step:,} of {steps:,}"),
        )  # fmt: skip
    except QualityError as error:
        code, failed = EXIT_OK, str(error)
    if code == EXIT_INTERRUPTED:
        raise Interrupted
    names = [f"run/{encoder.BEST_FILE}"] if (out / encoder.BEST_FILE).exists() else []
    return Result({"steps": steps}, hashes(folder, names), failed=failed)


def best_encoder(results: Results) -> Path:
    """The encoder of the training."""
    return results["train"].folder / "run" / encoder.BEST_FILE
