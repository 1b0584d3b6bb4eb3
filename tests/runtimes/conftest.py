"""A voice for a tiny release, and one for a release with embeddings as wide as the real ones."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_release import tiny_params, write_tiny_release
from voxclone.io import tensor_hash
from voxclone.release.params import Params
from voxclone.release.release import Release, load_table
from voxclone.voice.embedding import voice_embedding
from voxclone.voice.file import Voice
from voxclone.voice.metadata import Consent, VoiceMetadata
from voxclone.voice.resolve import ResolvedVoice, resolve_file

REAL_WIDTH = 3072


@dataclass(frozen=True)
class Example:
    """A release, a voice file made for it, and that voice."""

    release: Release
    file: Path
    voice: ResolvedVoice


def wide_params() -> Params:
    """Tiny, but as wide as the real release, for runtimes that know no other width."""
    params = tiny_params()
    acoustic = params.audio.acoustic.model_copy(update={"dim": REAL_WIDTH, "input_dim": REAL_WIDTH})
    return replace(
        params,
        lm=params.lm.model_copy(update={"dim": REAL_WIDTH, "n_layers": 1}),
        audio=params.audio.model_copy(update={"acoustic": acoustic}),
    )


def make_voice(release: Release, path: Path, frames: int = 40, name: str = "dora") -> ResolvedVoice:
    """Write a voice of random codes for `release`."""
    audio = release.params.audio
    sizes = [audio.semantic_codebook_size]
    sizes += [audio.acoustic_codebook_size] * audio.n_acoustic_codebook
    generator = torch.Generator().manual_seed(frames)
    codes = torch.stack([torch.randint(s, (frames,), generator=generator) for s in sizes])
    metadata = VoiceMetadata(
        name=name,
        consent=Consent(kind="self", statement="I agree."),
        encoder_hash="e",
        table_hash=tensor_hash(load_table(release)),
        reference_seconds=frames * 0.08,
        reference_hash="r",
        tool="test",
    )
    Voice(codes, voice_embedding(codes, release), metadata).save(path)
    return resolve_file(path, release)


def make_example(folder: Path, params: Params) -> Example:
    release = Release.open(write_tiny_release(folder / "model", params=params))
    file = folder / "dora.voice.safetensors"
    return Example(release, file, make_voice(release, file))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return make_example(tmp_path_factory.mktemp("tiny"), tiny_params())


@pytest.fixture(scope="package")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return make_example(tmp_path_factory.mktemp("wide"), wide_params())
