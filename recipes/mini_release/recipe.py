"""How the mini release is made, stage after stage.

Each stage writes into the run's folder and is skipped when it is done, so the recipe can be
interrupted and called again, on the same machine or on another one. The recipe trains the codec's
encoder itself; its published copy (the oracle) is for evaluation alone.
"""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from recipes.mini_release.alignment import Transcript, align_transcript
from recipes.mini_release.codec import CodecTask, fresh_codec
from recipes.mini_release.crops import CropSource
from recipes.mini_release.layout import mini_params, write_tekken
from recipes.mini_release.objectives import PerceptualLoss
from recipes.mini_release.progress import Progress
from recipes.mini_release.recognizer import RecognizerTask
from recipes.mini_release.run import TRANSCRIPTS, Run
from recipes.mini_release.speaker_network import SpeakerNetworkTask
from recipes.mini_release.speech import SpeechTask
from recipes.mini_release.speech_data import SpeechBatches, SpeechData, SpeedCodes, encode_corpus
from recipes.mini_release.synthetic import joe, kokoro, synthesize
from recipes.mini_release.teacher import TeacherStates, WindowTeacher, make_states
from recipes.mini_release.transcripts import BatchTranscriber, texts_of, transcribe
from voxclone.data.corpus import Corpus, PackedCorpus, pack
from voxclone.data.manifest import Clip, read_manifest
from voxclone.errors import ConfigError
from voxclone.io import atomic_file
from voxclone.tts.prompt import PromptMaker

SENTENCES = Path(__file__).parent / "data" / "sentences.txt"
KOKORO_BLENDS = 92
READER = "kathleen"
"""The speaker whose sentences synthetic voices speak, too."""
SYNTHETIC = ("synthetic/joe", "synthetic/kokoro")
TRAIN, VALID = "train", "valid"


def train_recognizer(run: Run) -> None:
    """Characters from speech: a frozen network of the codec's losses, and times of characters."""
    settings = run.settings.recognizer

    def build() -> RecognizerTask:
        train, valid = (run.split(name, lambda clip: bool(clip.text)) for name in (TRAIN, VALID))
        return RecognizerTask.create(settings, train, valid, run.device)

    run.fit("recognizer", build, settings.model_dump(mode="json"))


def train_speaker_network(run: Run) -> None:
    """Which training speaker is it? The other frozen network of the codec's losses."""
    settings = run.settings.speaker_network

    def build() -> SpeakerNetworkTask:
        return SpeakerNetworkTask.create(settings, run.split(TRAIN), run.split(VALID), run.device)

    run.fit("speaker_network", build, settings.model_dump(mode="json"))


def make_transcripts(run: Run) -> None:
    """Whisper's transcripts of all English clips."""
    wanted = [clip for clip in run.corpus.clips if is_english(clip)]
    load = partial(BatchTranscriber, str(run.options.whisper), "en", str(run.device))
    transcribe(wanted, load, run.folder / TRANSCRIPTS, run.track_in_time("transcripts"))


def make_teacher(run: Run) -> list[Path]:
    """Whisper's states for the clips of the release's speakers; their files."""
    texts = texts_of(run.corpus, run.split(TRAIN).indices, _transcripts(run))
    load = partial(WindowTeacher, str(run.options.whisper), str(run.device))
    return make_states(
        run.corpus, texts, load, run.folder / "teacher", run.track_in_time("teacher")
    )


def make_synthetic(run: Run) -> None:
    """Sentences of our own and of a recorded speaker, each once by Joe and once by one of Kokoro's
    voices, in another order."""
    if run.options.kokoro is None:
        raise ConfigError("The stage synthetic needs `--kokoro FOLDER` (see synthetic.py).")
    own = SENTENCES.read_text(encoding="utf-8").splitlines()
    read = sorted({c.text for c in run.corpus.clips if c.speaker == READER and c.text})
    texts = [*own, *read]
    by_joe, by_kokoro = (run.folder / name for name in SYNTHETIC)
    synthesize(texts, [joe()], by_joe)
    mixed = random.Random(0).sample(texts, len(texts))
    synthesize(mixed, kokoro(run.options.kokoro, KOKORO_BLENDS), by_kokoro)


def train_codec(run: Run) -> None:
    """Speech to codes and back."""
    settings, config = run.settings.codec_training, run.settings.codec

    def build() -> CodecTask:
        perceptual = PerceptualLoss(run.recognizer(), run.speaker_network())
        codec = fresh_codec(config, settings.run.seed)
        crops = CropSource(run.split(TRAIN), settings.crops, codec.frame_size, run.device)
        teacher = TeacherStates(run.corpus, make_teacher(run), run.device)
        return CodecTask.create(settings, codec, crops, teacher, perceptual, _progress(run).codec)

    dumped = settings.model_dump(mode="json") | {"codec": config.model_dump(mode="json")}
    run.fit("codec", build, dumped)


def train_decoder(run: Run) -> None:
    """The decoder alone goes on; codes stay as they are."""
    settings = run.settings.decoder_training

    def build() -> CodecTask:
        found = run.finished("codec")
        codec = run.codec("codec")
        crops = CropSource(run.split(TRAIN), settings.crops, codec.frame_size, run.device)
        perceptual = PerceptualLoss(run.recognizer(), run.speaker_network())
        task = CodecTask.create(settings, codec, crops, None, perceptual, _progress(run).codec)
        prefix = "module.discriminators."
        state = {k.removeprefix(prefix): v for k, v in found.tensors.items() if prefix in k}
        task.discriminators.load_state_dict(state)
        return task

    run.fit("decoder", build, settings.model_dump(mode="json"))


def train_speech(run: Run) -> None:
    """Text and voice to codes."""
    settings = run.settings.speech

    def build() -> SpeechTask:
        codec = run.codec("codec")
        params = mini_params(run.settings.language_model, run.settings.codec, voices={})
        prompts = PromptMaker(write_tekken(run.folder / "tekken.json", voices={}))
        corpus, folder = spoken_corpus(run), run.folder / "codes"
        codes = encode_corpus(codec, corpus, run.settings.speeds, folder, run.track("codes"))
        transcripts = align_corpus(run, corpus, prompts)

        def batches(split: str, used: list[SpeedCodes]) -> SpeechBatches:
            subset = corpus.subset(lambda clip: clip.split == split)
            data = SpeechData(subset, transcripts, used, codec.frame_rate, settings.examples)
            return SpeechBatches(data, prompts, params, settings.run.seed)

        measure = partial(_progress(run).speech, codec=codec, prompts=prompts)
        return SpeechTask.create(
            settings, params, batches(TRAIN, codes), batches(VALID, codes[:1]), run.device,
            measure, run.options.workers,
        )  # fmt: skip

    sizes = {"size": run.settings.language_model.model_dump(mode="json")}
    run.fit("speech", build, settings.model_dump(mode="json") | sizes)


def spoken_corpus(run: Run) -> PackedCorpus:
    """What the language model learns from: the English clips of the release's speakers, validation
    clips, with texts that Whisper does not contradict, and the synthetic voices."""
    indices = [i for name in (TRAIN, VALID) for i in run.split(name).indices]
    texts = texts_of(run.corpus, indices, _transcripts(run))
    clips = [
        replace(run.corpus.clips[index], text=text)
        for index, text in texts.items()
        if is_english(run.corpus.clips[index])
    ]
    made = [c for name in SYNTHETIC for c in read_manifest(run.folder / name / "manifest.jsonl")]
    return pack([*clips, *made], run.folder / "spoken", run.track("decoding speech"))


def align_corpus(run: Run, corpus: Corpus, prompts: PromptMaker) -> dict[int, Transcript]:
    """Transcripts with the time of every text id, by clip index; made once."""
    path = run.folder / "codes" / "times.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    recognizer = run.recognizer()
    transcripts = {}
    for index in run.track("alignment")(range(len(corpus))):
        clip = corpus.clips[index]
        text = clip.text or ""
        key = f"{clip.id}\t{text}"
        if key in stored:
            transcripts[index] = Transcript(*stored[key])
        else:
            ids, wave_S = prompts.text_ids(text), corpus.wave(index)
            transcripts[index] = align_transcript(recognizer, wave_S, text, ids)
            stored[key] = [transcripts[index].ids, transcripts[index].seconds]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(json.dumps(stored).encode())
    return transcripts


def is_english(clip: Clip) -> bool:
    return (clip.language or "").startswith("en")


def _transcripts(run: Run) -> dict[str, str]:
    path = run.folder / TRANSCRIPTS
    if not path.exists():
        raise ConfigError(f"The stage transcripts in {run.folder} has not begun: finish it first.")
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _progress(run: Run) -> Progress:
    return Progress(run.corpus, run.options.whisper, run.folder, run.device)


STAGES: dict[str, Callable[[Run], object]] = {
    "recognizer": train_recognizer,
    "speaker_network": train_speaker_network,
    "transcripts": make_transcripts,
    "teacher": make_teacher,
    "synthetic": make_synthetic,
    "codec": train_codec,
    "decoder": train_decoder,
    "speech": train_speech,
}
"""In order. Codes do not depend on the decoder's last stage, so `decoder` and `speech` may run side
by side."""


def make(run: Run, stage: str | None = None) -> None:
    """All stages in order; or one `stage` alone, on what the earlier ones left in the folder."""
    if stage is not None and stage not in STAGES:
        raise ConfigError(f"There is no stage {stage!r}; the stages are {', '.join(STAGES)}.")
    unknown = sorted(set(run.options.start) - set(STAGES))
    if unknown:
        raise ConfigError(f"`--start` names {unknown[0]!r}; the stages are {', '.join(STAGES)}.")
    for name in STAGES if stage is None else (stage,):
        STAGES[name](run)
