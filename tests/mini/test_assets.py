"""What comes with the package: a release that withholds its encoder, an oracle, a recovery."""

from pathlib import Path

import torch

import voxclone
from voxclone.codec.model import Codec
from voxclone.mini.oracle import ASSETS
from voxclone.models.ctc_asr import load_packaged_recognizer
from voxclone.models.speaker_network import SPEAKER_NETWORK_FILE, load_packaged_speaker_network
from voxclone.release.encoder_file import open_codec, packaged_encoders
from voxclone.release.inspection import inspect_release
from voxclone.release.release import Release
from voxclone.release.safetensors import read_header
from voxclone.voice.presets import Inversion

PACKAGE = Path(voxclone.__file__).parent
WEIGHTS = {".safetensors", ".pt", ".npz"}


def test_release_is_whole_and_withholds_its_encoder(mini_release: Release) -> None:
    found = inspect_release(mini_release)
    assert found.encoder == "withheld" and not found.problems
    assert len(found.voices) == 20


def test_presets_invert_bit_for_bit(mini_inversions: dict[str, Inversion]) -> None:
    assert len(mini_inversions) == 20
    assert all(bool(each.exact_T.all()) for each in mini_inversions.values())


def test_weights_stay_small_and_have_their_license() -> None:
    folders = (PACKAGE, Path(__file__).parents[1] / "golden")
    files = [p for folder in folders for p in folder.rglob("*") if p.suffix in WEIGHTS]
    assert sum(p.stat().st_size for p in files) < 64 * 2**20
    assert "CC BY-NC-SA 4.0" in (ASSETS / "README.md").read_text(encoding="utf-8")


def test_recovered_encoder_is_not_the_oracle(mini_release: Release, oracle_of_mini: Codec) -> None:
    """Both belong to the release, and they are two different networks."""
    assert len(packaged_encoders()) == 1
    oracle = oracle_of_mini.require_encoder().state_dict()
    recovered = open_codec(mini_release).require_encoder().state_dict()
    assert oracle.keys() == recovered.keys()
    for name, tensor in oracle.items():
        if tensor.ndim > 1 and tensor.shape[1] > 1:  # gains of channels follow from the codebook
            both = torch.stack([tensor.flatten(), recovered[name].flatten()]).double()
            assert abs(float(torch.corrcoef(both)[0, 1])) < 0.1, name


def test_the_oracle_gives_its_own_codes_back(
    oracle_of_mini: Codec, mini_inversions: dict[str, Inversion]
) -> None:
    """The re-encoding bound, on the presets: decoded, and read again."""
    codes = mini_inversions["en_female_1"].codes_KT[None, :, :50]
    with torch.inference_mode():
        again = oracle_of_mini.encode(oracle_of_mini.decode(codes))
    near = (again[:, 1:] - codes[:, 1:]).abs() <= 1
    assert float(near.float().mean()) > 0.85
    assert float((again[:, 0] == codes[:, 0]).float().mean()) > 0.4


def test_the_packaged_speaker_network_loads_without_training_speakers() -> None:
    wave_BS = 0.1 * torch.randn(2, 24000, generator=torch.Generator().manual_seed(0))
    embedding_BD = load_packaged_speaker_network()(wave_BS)
    assert torch.allclose(embedding_BD.norm(dim=-1), torch.ones(2))
    names = read_header(ASSETS / "voices" / SPEAKER_NETWORK_FILE).tensors
    assert names and not any("centers" in name for name in names)


def test_the_packaged_recognizer_transcribes() -> None:
    assert isinstance(load_packaged_recognizer().transcribe(torch.zeros(24000)), str)
