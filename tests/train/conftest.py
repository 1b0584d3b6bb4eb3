"""Trainings that need a language model."""

from pathlib import Path

import pytest

from tests.helpers.tiny_speech import TinySpeech, tiny_speech
from voxclone.data.corpus import Corpus


@pytest.fixture
def speech_model(corpus: Corpus, tmp_path: Path) -> TinySpeech:
    return tiny_speech(corpus, tmp_path)
