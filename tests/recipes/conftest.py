"""A model that reads the corpus of a few seconds."""

import json
from pathlib import Path

import pytest

from recipes.mini_release.codebank import encode_corpus, variants_of
from recipes.mini_release.files import small_tekken
from recipes.mini_release.speech import SpeechTask, SpeechTraining
from recipes.mini_release.training import RunSettings
from recipes.mini_release.triples import SpeechData, Transcript
from tests.helpers.random_weights import drawn_codec
from tests.helpers.tiny_release import tiny_params
from tests.train.tiny import FAST
from voxclone.data.corpus import Corpus
from voxclone.release.params import Params
from voxclone.tts.prompt import PromptMaker


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
