"""Every config that is shipped can be read, and says something of its own."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from recipes.mini_release.run import MiniSettings
from voxclone.codec.config import CodecConfig
from voxclone.config import load_settings
from voxclone.errors import ConfigError
from voxclone.train import distributed
from voxclone.train.encoder_config import EncoderConfig
from voxclone.train.material import check

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize(
    "path",
    sorted([*CONFIGS.glob("encoder/*.yaml"), *CONFIGS.glob("ablations/*.yaml")]),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_encoder_configs(path: Path) -> None:
    config = load_settings(EncoderConfig, path)
    weights, steps = config.weights.model_dump(), config.run.steps
    assert any(weights.values()) and steps > 0
    if weights["pseudo_label"]:
        labels = config.pseudo_labels.label_steps
        assert labels and max(labels) < steps
    if weights["speaker_contrastive"]:
        assert config.speaker_loss.speaker_encoder and config.speaker_loss.start < steps


@pytest.mark.parametrize("name", ["voxtral_4b", "paper", "community"])
def test_configs_of_the_real_size_are_shared_by_a_node(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_settings(EncoderConfig, CONFIGS / "encoder" / f"{name}.yaml")
    for size in (1, 2, 4, 8):
        monkeypatch.setattr(distributed, "world_size", lambda size=size: size)
        check(config, CodecConfig(), None)


@pytest.mark.parametrize(
    ("key", "now"),
    [
        ("optimiser.lr=1", "'optimiser' is now `optimizer`"),
        ("weights.told=1", "'weights.told' is now `weights.pseudo_label`"),
        ("whisper=openai/whisper-base", "'whisper' is now `teacher`"),
        ("speech=a.jsonl", "'speech' is now the option `--speech`"),
        ("defects.double_tanh=true", "'defects' was removed: leave it out"),
    ],
)
def test_keys_of_older_versions_are_refused_with_the_new_one(key: str, now: str) -> None:
    with pytest.raises(ConfigError, match=now):
        load_settings(EncoderConfig, CONFIGS / "encoder" / "mini.yaml", [key])


def test_a_training_has_at_most_sixty_values() -> None:
    def count(model: type[BaseModel]) -> int:
        kinds = [field.annotation for field in model.model_fields.values()]
        nested = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        return len(kinds) - len(nested) + sum(count(kind) for kind in nested)

    assert count(EncoderConfig) <= 60


def test_naive_is_reconstruction_alone() -> None:
    weights = load_settings(EncoderConfig, CONFIGS / "encoder" / "naive.yaml").weights
    used = {name for name, value in weights.model_dump().items() if value}
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
        load_settings(EncoderConfig, overrides=[given])
    with pytest.raises(ConfigError) as of_file:
        load_settings(EncoderConfig, path)
    for caught, where in ((of_override, f"The value of the override {given!r}"), (of_file, path)):
        sentence = str(caught.value)
        assert f"{where} is not valid YAML: " in sentence and "\n" not in sentence
