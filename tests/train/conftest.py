"""A corpus of a few seconds: synthetic speakers with transcripts; and a model that reads it."""

import json
from pathlib import Path

import pytest
import soundfile
from recipes.mini_release.codebank import encode_corpus, variants_of
from recipes.mini_release.speech import SpeechTask, SpeechTraining
from recipes.mini_release.triples import SpeechData, Transcript

from tests.audio.signals import speech
from tests.golden.draw import drawn_codec
from tests.release.tiny import tiny_params
from tests.train.tiny import FAST
from voxclone.data.corpus import Corpus, pack
from voxclone.data.manifest import read_manifest
from voxclone.release.params import Params
from voxclone.release.tekken import small_tekken
from voxclone.train.run import RunSettings
from voxclone.tts.prompt import PromptMaker

SPEAKERS = ("ada", "ben", "cid")
CLIPS = 4
TEXTS = ("we go", "a dog sat", "no more", "so it is")


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    rows = []
    for s, speaker in enumerate(SPEAKERS):
        for c in range(CLIPS):
            name = f"{speaker}-{c}"
            wave = speech([0.6 + 0.1 * c, 0.4 + 0.1 * s], [0.05, 0.1, 0.1])
            soundfile.write(folder / f"{name}.flac", wave, 24000)
            rows.append(
                {
                    "id": name,
                    "path": f"{name}.flac",
                    "speaker": speaker,
                    "duration": len(wave) / 24000,
                    "text": TEXTS[c],
                    "language": "en",
                    "split": "valid" if c == 0 else "train",
                    "licence": "CC0-1.0",
                }
            )
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def corpus(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return pack(read_manifest(manifest), tmp_path_factory.mktemp("packed"))


@pytest.fixture
def speech_task(corpus: Corpus, tmp_path: Path) -> SpeechTask:
    params: Params = tiny_params()
    codec = drawn_codec(params.codec)
    path = tmp_path / "tekken.json"
    path.write_text(json.dumps(small_tekken({}, frame_rate=100.0)))
    prompts = PromptMaker(path)
    everything = corpus.subset(lambda c: True)
    bank = encode_corpus(
        codec, corpus, everything.indices, variants_of((1.0, 0.9), (0.0, 0.5)), tmp_path
    )
    transcripts = {
        i: Transcript(prompts.text_ids(corpus.clips[i].text or ""), None)
        for i in everything.indices
    }
    for i, transcript in list(transcripts.items())[1:]:
        times = [0.1 * k for k in range(len(transcript.ids))]
        transcripts[i] = Transcript(transcript.ids, times)
    data = SpeechData(
        corpus, everything, bank, transcripts, codec.frame_rate, everything.by_speaker()
    )
    settings = SpeechTraining(
        run=RunSettings(steps=40, autocast=False),
        optimiser=FAST,
        batch_positions=600,
        voice_frames=(5, 20),
        target_frames=(4, 200),
        guide_layer=1,
    )
    return SpeechTask.create(settings, params, data, data, prompts)
