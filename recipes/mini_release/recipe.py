"""How the mini release is made: recogniser, codec, decoder, language model; then `publish`.

Each stage writes into a folder of its own under the run and is skipped when it is done, so the
recipe can be interrupted and called again. The recipe trains the codec's encoder itself and has it
in the run's folder; the published copy of it (the oracle) is for evaluation alone.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from recipes.mini_release.alignment import align, character_places
from recipes.mini_release.codebank import CodeBank, encode_corpus, variants_of
from recipes.mini_release.codec import CodecTask
from recipes.mini_release.decoder import DecoderTask
from recipes.mini_release.layout import mini_params, write_tekken
from recipes.mini_release.recogniser import RecogniserTask
from recipes.mini_release.rehearsal import VoiceJudge
from recipes.mini_release.speech import SpeechTask
from recipes.mini_release.teacher import teacher_features
from recipes.mini_release.training import RunSettings
from recipes.mini_release.triples import SpeechData, Transcript
from recipes.mini_release.voices import VoicesTask
from recipes.mini_release.workshop import (
    MiniSettings,
    Workshop,
    codec_of,
    finished,
    finished_codec,
    finished_recogniser,
    finished_voices,
    listeners,
    open_workshop,
)
from voxclone.data.corpus import Corpus, Subset
from voxclone.errors import ConfigError, TrainingError
from voxclone.mini.oracle import oracle_codec
from voxclone.models.ctc_asr import Recognizer, normalize_text
from voxclone.release.release import Release
from voxclone.train.loop import Outcome, Task, fit
from voxclone.tts.prompt import PromptMaker
from voxclone.tts.tts import TTS

STAGES = ("recogniser", "voices", "codec", "decoder", "speech")


def train_recogniser(shop: Workshop) -> None:
    """Stage 1: characters from speech."""
    settings = shop.settings.recogniser
    task = RecogniserTask.create(
        settings, shop.corpus, shop.split("train", spoken=True), shop.split("valid", spoken=True)
    )
    _fit(shop, task, settings.run, "recogniser", settings.model_dump(mode="json"))


def train_voices(shop: Workshop) -> None:
    """Stage 1b: which training speaker is it?"""
    settings = shop.settings.voices
    task = VoicesTask.create(settings, shop.corpus, shop.split("train"), shop.split("valid"))
    _fit(shop, task, settings.run, "voices", settings.model_dump(mode="json"))


def train_codec(shop: Workshop) -> None:
    """Stage 2: speech to codes and back."""
    settings, config = shop.settings.codec_training, shop.settings.codec
    teacher = teacher_features(
        finished_recogniser(shop),
        shop.corpus,
        config.frame_size,
        shop.folder / "recogniser",
        shop.track("teacher states"),
    )
    task = CodecTask.create(
        settings,
        config,
        shop.corpus,
        shop.split("train"),
        shop.split("valid"),
        teacher,
        listeners(shop) if settings.weights.heard else None,
    )
    if shop.settings.start is not None:
        release = Release.open(shop.settings.start / "release")
        task.codec.load_state_dict(oracle_codec(release, shop.settings.start).state_dict())
    dumped = settings.model_dump(mode="json") | {"codec": config.model_dump(mode="json")}
    _fit(shop, task, settings.run, "codec", dumped)


def train_decoder(shop: Workshop) -> None:
    """Stage 3: the decoder alone goes on; codes stay as they are."""
    settings = shop.settings.decoder_training
    found = finished(shop, "codec", shop.settings.codec_training.run).tensors
    prefix = "module.adversary."
    judges = {k[len(prefix) :]: v for k, v in found.items() if k.startswith(prefix)}
    task = DecoderTask.create(
        settings,
        codec_of(shop, found),
        judges,
        shop.settings.codec_training.adversary,
        shop.corpus,
        shop.split("train"),
        shop.split("valid"),
        listeners(shop) if settings.weights.heard else None,
    )
    _fit(shop, task, settings.run, "decoder", settings.model_dump(mode="json"))


def train_speech(shop: Workshop) -> None:
    """Stage 4: text and voice to codes."""
    found = finished(shop, "codec", shop.settings.codec_training.run).tensors
    recogniser, codec = finished_recogniser(shop), codec_of(shop, found).eval()
    settings, params = shop.settings.speech, mini_params(shop.settings, voices={})
    tekken = write_tekken(shop.folder / "tekken.json", voices={})
    prompts = PromptMaker(tekken)
    data = {}
    variants = variants_of(shop.settings.speeds, shop.settings.delays, shop.settings.coloured)
    for split, used in (("train", variants), ("valid", variants[:1])):
        every = shop.split(split)
        bank = encode_corpus(
            codec,
            shop.corpus,
            every.indices,
            used,
            shop.folder / "codes",
            shop.track(f"codes of {split}"),
        )
        data[split] = speech_data(shop, every, bank, recogniser, prompts, codec.frame_rate)
    judge = (
        VoiceJudge.frozen(finished_codec(shop), finished_voices(shop)) if settings.heard else None
    )
    task = SpeechTask.create(settings, params, data["train"], data["valid"], prompts, judge)
    if shop.settings.start is not None:
        spoken = TTS.load(Release.open(shop.settings.start / "release"))
        task.backbone.load_state_dict(spoken.backbone.state_dict())
        task.head.load_state_dict(spoken.head.state_dict())
    dumped = settings.model_dump(mode="json")
    dumped |= {"size": shop.settings.language_model.model_dump(mode="json")}
    _fit(shop, task, settings.run, "speech", dumped)


def speech_data(
    shop: Workshop,
    every: Subset,
    bank: CodeBank,
    recogniser: Recognizer,
    prompts: PromptMaker,
    frame_rate: float,
) -> SpeechData:
    """Transcripts with the time of every text id, for all clips that have one; made once."""
    clips = shop.corpus.clips
    subset = Subset(shop.corpus, [i for i in every.indices if clips[i].text])
    untold = [i for i in every.indices if not clips[i].text]
    path = shop.folder / "codes" / f"times-{len(subset.indices)}-{subset.indices[0]}.json"
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        transcripts = {int(k): Transcript(v[0], v[1]) for k, v in stored.items()}
    else:
        transcripts = {}
        for index in shop.track("alignment")(subset.indices):
            text = clips[index].text or ""
            transcripts[index] = _transcript(shop.corpus, index, text, recogniser, prompts)
        rows = {index: [t.ids, t.seconds] for index, t in transcripts.items()}
        path.write_text(json.dumps(rows), encoding="utf-8")
    return SpeechData(
        shop.corpus,
        subset,
        bank,
        transcripts,
        frame_rate,
        subset.by_speaker(),
        Subset(shop.corpus, untold) if untold else None,
    )


def _transcript(
    corpus: Corpus, index: int, text: str, recogniser: Recognizer, prompts: PromptMaker
) -> Transcript:
    ids = prompts.text_ids(text)
    normal = normalize_text(text)
    with torch.inference_mode():
        log_probs = recogniser(recogniser.features(corpus.wave(index)[None]))[0].numpy()
    spelled = [(place, code) for place, c in enumerate(normal) for code in recogniser.spell(c)]
    first = align(log_probs, [code for _, code in spelled])
    if first is None or len(ids) != len(text.encode()):
        return Transcript(ids, None)
    places = character_places(text, normal)
    byte_at = np.cumsum([0, *(len(c.encode()) for c in text)])
    seconds = np.full(len(ids), np.nan)
    for (place, _), frame in zip(spelled, first, strict=True):
        seconds[byte_at[places[place]]] = frame / 50.0
    known = ~np.isnan(seconds)
    order = np.arange(len(ids))
    filled = np.maximum.accumulate(np.interp(order, order[known], seconds[known]))
    return Transcript(ids, [round(float(s), 3) for s in filled])


def _fit(
    shop: Workshop, task: Task, run: RunSettings, name: str, config: dict[str, Any]
) -> Outcome:
    outcome = fit(
        task, run, shop.folder / name, resume=True, changed=shop.changed, config=config,
        console=shop.console,
    )  # fmt: skip
    if outcome.sentence is not None:
        raise TrainingError(f"Stage {name} was stopped: {outcome.sentence}")
    if outcome.reason != "done":
        raise InterruptedRecipe(f"Stage {name} stopped at step {outcome.step} ({outcome.reason}).")
    return outcome


class InterruptedRecipe(ConfigError):
    """A stage was stopped; calling the recipe again goes on from there."""

    exit_code = 5


def run(
    settings: MiniSettings,
    manifest: Path,
    folder: Path,
    console: Console,
    *,
    stage: str | None = None,
    changed: bool = False,
) -> None:
    """All stages in order; or one `stage` alone, on what the earlier ones left in the folder. Codes
    do not depend on the decoder's finish, so `decoder` and `speech` may run side by side, unless
    the decoder's voices are `heard` in the latter."""
    if stage is not None and stage not in STAGES:
        raise ConfigError(f"There is no stage {stage!r}; the stages are {', '.join(STAGES)}.")
    shop = open_workshop(settings, manifest, folder, console, changed=changed)
    work = {
        "recogniser": train_recogniser,
        "voices": train_voices,
        "codec": train_codec,
        "decoder": train_decoder,
        "speech": train_speech,
    }
    for name in STAGES if stage is None else (stage,):
        work[name](shop)
