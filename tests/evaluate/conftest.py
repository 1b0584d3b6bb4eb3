"""The mini release and its withheld encoder, loaded once a session."""

import pytest

from voxclone.codec.model import Codec
from voxclone.release.release import Release


@pytest.fixture(scope="session")
def release(mini_release: Release) -> Release:
    return mini_release


@pytest.fixture(scope="session")
def oracle(oracle_of_mini: Codec) -> Codec:
    return oracle_of_mini
