"""A tiny release and prepared speech, to recover an encoder with."""

from pathlib import Path

import pytest

from tests.helpers.tiny_release import write_tiny_release
from tests.recover.speech import CLIPS, TESTED, write_prepared


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_release(tmp_path_factory.mktemp("recover") / "tiny")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("recover") / "speech", CLIPS, TESTED)
