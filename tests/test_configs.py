"""Every config that is shipped can be read, and says something of its own."""

from pathlib import Path

import pytest

from recipes.mini_release.workshop import MiniSettings
from voxclone.codec.config import CodecConfig
from voxclone.config import load_settings
from voxclone.errors import ConfigError
from voxclone.train import ranks
from voxclone.train.encoder_settings import EncoderTraining
from voxclone.train.encoder_start import check

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize(
    "path",
    sorted([*CONFIGS.glob("encoder/*.yaml"), *CONFIGS.glob("ablations/*.yaml")]),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_encoder_configs(path: Path) -> None:
    settings = load_settings(EncoderTraining, path)
    weights = settings.weights.model_dump(exclude={"waveform"})
    assert any(weights.values()) and settings.run.steps > 0
    if settings.weights.told:
        assert settings.channel.at and max(settings.channel.at) < settings.run.steps


@pytest.mark.parametrize("name", ["voxtral_4b", "paper", "community_v3", "community_v3_mended"])
def test_configs_of_the_real_size_are_shared_by_a_node(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(EncoderTraining, CONFIGS / "encoder" / f"{name}.yaml")
    for size in (1, 2, 4, 8):
        monkeypatch.setattr(ranks, "size", lambda size=size: size)
        check(settings, CodecConfig(), taught=True, told=True, heard=True)


def test_naive_is_reconstruction_alone() -> None:
    weights = load_settings(EncoderTraining, CONFIGS / "encoder" / "naive.yaml").weights
    used = {name for name, value in weights.model_dump(exclude={"waveform"}).items() if value}
    assert used == {"mel", "stft", "low", "commitment"}


def test_the_config_of_the_mini_release() -> None:
    settings = load_settings(
        MiniSettings, CONFIGS.parent / "recipes" / "mini_release" / "mini.yaml"
    )
    assert settings.presets and settings.speeds[0] == 1.0  # the first speed is what is validated


@pytest.mark.parametrize("value", ["[1", "{a: 1", "'", "a: b: c", "2024-99-99", "{[1]: 2}", "\0"])
def test_a_value_that_is_no_yaml_is_a_sentence(value: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"frames: {value}")
    given = f"frames={value}"
    with pytest.raises(ConfigError) as of_override:
        load_settings(EncoderTraining, overrides=[given])
    with pytest.raises(ConfigError) as of_file:
        load_settings(EncoderTraining, path)
    for caught, where in ((of_override, f"The value of the override {given!r}"), (of_file, path)):
        sentence = str(caught.value)
        assert f"{where} is not valid YAML: " in sentence and "\n" not in sentence
