"""The mini release and its withheld encoder."""

import pytest

from voxclone.codec.model import Codec
from voxclone.mini.oracle import oracle_codec
from voxclone.release.release import Release


@pytest.fixture(scope="module")
def release() -> Release:
    return Release.open("mini")


@pytest.fixture(scope="module")
def oracle(release: Release) -> Codec:
    return oracle_codec(release)
