"""The true encoder of the mini release, put aside: opened here, and by evaluation alone."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from voxclone.codec.model import Codec
from voxclone.errors import ReleaseError
from voxclone.evaluate.recogniser import Recogniser, RecogniserConfig
from voxclone.release.archive import Release
from voxclone.release.encoders import open_codec
from voxclone.settings import parse_settings

ASSETS = Path(__file__).parent / "assets"


def oracle_codec(release: Release, assets: Path = ASSETS) -> Codec:
    """The codec of the mini release with its true encoder."""
    path = assets / "oracle" / "encoder.safetensors"
    if not path.is_file():
        raise ReleaseError(f"The oracle {path} is not there: publish the mini release first.")
    return open_codec(release, path)


def recogniser(assets: Path = ASSETS) -> Recogniser:
    """The recogniser that was trained on the pack's transcripts."""
    folder = assets / "recogniser"
    if not folder.is_dir():
        raise ReleaseError(f"The recogniser {folder} is not there: publish the mini release first.")
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = Recogniser(parse_settings(RecogniserConfig, values, str(folder)))
    state = load_file(folder / "recogniser.safetensors")
    model.load_state_dict({name: tensor.to(torch.float32) for name, tensor in state.items()})
    return model.eval().requires_grad_(False)
