"""Trainings of the mini release at a tiny size, and a tiny random Whisper as their teacher."""

from pathlib import Path

import pytest
import torch

from recipes.mini_release.alignment import Transcript
from recipes.mini_release.layout import LanguageModelSize, mini_params, write_tekken
from recipes.mini_release.speech import SpeechTask, SpeechTraining
from recipes.mini_release.speech_data import SpeechBatches, SpeechData, encode_corpus
from recipes.mini_release.teacher import TeacherStates, WindowTeacher, make_states
from tests.helpers.random_weights import drawn_codec
from tests.helpers.tiny_whisper import save_tiny_whisper
from tests.train.tiny import CODEC, CPU
from voxclone.data.corpus import Corpus
from voxclone.tts.prompt import PromptMaker

MODEL = LanguageModelSize(
    dim=16, n_layers=3, head_dim=8, hidden_dim=24, n_heads=2, n_kv_heads=1, acoustic_layers=1,
    acoustic_hidden_dim=16,
)  # fmt: skip
SPEECH = {
    "run": {"steps": 24, "save_every": 5, "validate_every": 24, "autocast": False},
    "optimizer": {"lr": 3e-3, "warmup_steps": 3, "muon": True, "hold": 0.5},
    "examples": {"voice_frames": (4, 10), "target_frames": (4, 60), "shapes": ((6, 44), (3, 60))},
    "flow_frames": 100, "sampled_frames": 8,
}  # fmt: skip


@pytest.fixture(scope="session")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random Whisper of a few thousand weights."""
    folder = tmp_path_factory.mktemp("whisper")
    save_tiny_whisper(folder)
    return folder


@pytest.fixture(scope="session")
def states(corpus: Corpus, whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of Whisper's states of all clips but the last, which has no text."""
    texts = {i: corpus.clips[i].text or "" for i in range(len(corpus) - 1)}
    folder = tmp_path_factory.mktemp("teacher")
    return make_states(corpus, texts, lambda: WindowTeacher(str(whisper)), folder)


@pytest.fixture(scope="session")
def teacher(corpus: Corpus, states: list[Path]) -> TeacherStates:
    return TeacherStates(corpus, states, CPU)


def speech_data(corpus: Corpus, prompts: PromptMaker, folder: Path) -> SpeechData:
    """Examples of the clips of a corpus; of all but the first, the times of characters are
    known."""
    codec = drawn_codec(CODEC)
    codes = encode_corpus(codec, corpus, (1.0, 0.9), folder)
    transcripts = {}
    for index, clip in enumerate(corpus.clips):
        ids = prompts.text_ids(clip.text or "")
        seconds = [0.1 * place for place in range(len(ids))] if index else None
        transcripts[index] = Transcript(ids, seconds)
    settings = SpeechTraining.model_validate(SPEECH).examples
    subset = corpus.subset(lambda clip: True)
    return SpeechData(subset, transcripts, codes, codec.frame_rate, settings)


def make_speech_task(
    corpus: Corpus, folder: Path, device: torch.device = CPU, **changed: object
) -> SpeechTask:
    settings = SpeechTraining.model_validate(SPEECH | changed)
    prompts = PromptMaker(write_tekken(folder / "tekken.json", voices={}))
    params = mini_params(MODEL, CODEC, {})
    batches = SpeechBatches(speech_data(corpus, prompts, folder), prompts, params, 0)
    return SpeechTask.create(
        settings,
        params,
        batches,
        batches,
        device,
        lambda backbone, head, step: {"valid/step": step},
    )


@pytest.fixture
def speech_task(corpus: Corpus, tmp_path: Path) -> SpeechTask:
    return make_speech_task(corpus, tmp_path)
