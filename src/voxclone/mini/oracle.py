"""The withheld encoder of the mini release, for evaluation only."""

from pathlib import Path

from voxclone.codec.model import Codec
from voxclone.errors import ReleaseError
from voxclone.release.encoder_file import open_codec
from voxclone.release.release import Release

ASSETS = Path(__file__).parent / "assets"


def oracle_codec(release: Release, assets: Path = ASSETS) -> Codec:
    """The codec of the mini release with its true encoder. Raises ReleaseError without it."""
    path = assets / "oracle" / "encoder.safetensors"
    if not path.is_file():
        raise ReleaseError(f"The oracle {path} is not there: publish the mini release first.")
    return open_codec(release, path)
