"""Every config that is shipped can be read, and says something of its own."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from recipes.mini_release.run import MiniSettings
from voxclone.codec.config import CodecConfig
from voxclone.config import load_settings
from voxclone.errors import ConfigError
from voxclone.train import distributed
from voxclone.train.adapter.config import CONFIGS as ADAPTER_CONFIGS
from voxclone.train.adapter.config import AdapterConfig
from voxclone.train.encoder_config import EncoderConfig, packaged_config
from voxclone.train.material import check

ROOT = Path(__file__).parents[1]
CONFIGS = packaged_config("mini").parent


@pytest.mark.parametrize(
    "path",
    sorted([*CONFIGS.glob("*.yaml"), *ROOT.glob("configs/ablations/*.yaml")]),
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


@pytest.mark.parametrize("path", sorted(ADAPTER_CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_adapter_configs(path: Path) -> None:
    config = load_settings(AdapterConfig, path)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
    assert config.adapter.reader == path.stem and config.weights.preset > 0


@pytest.mark.parametrize("name", ["voxtral_4b", "paper", "community"])
def test_configs_of_the_real_size_are_shared_by_a_node(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_settings(EncoderConfig, packaged_config(name))
    for size in (1, 2, 4, 8):
        monkeypatch.setattr(distributed, "world_size", lambda size=size: size)
        check(config.step_values, CodecConfig(), None)


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
        load_settings(EncoderConfig, packaged_config("mini"), [key])


def test_a_training_has_at_most_sixty_values() -> None:
    def count(model: type[BaseModel]) -> int:
        kinds = [field.annotation for field in model.model_fields.values()]
        nested = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        return len(kinds) - len(nested) + sum(count(kind) for kind in nested)

    assert count(EncoderConfig) <= 60
    assert count(AdapterConfig) <= 60


def test_naive_is_reconstruction_alone() -> None:
    weights = load_settings(EncoderConfig, packaged_config("naive")).weights
    used = {name for name, value in weights.model_dump().items() if value}
    assert used == {"mel", "stft", "low", "commitment"}


def test_the_config_of_the_mini_release() -> None:
    settings = load_settings(MiniSettings, ROOT / "recipes" / "mini_release" / "mini.yaml")
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
        assert f"{where} is not valid YAML" in sentence and "\n" not in sentence


WRONG_CONFIGS = {
    "stps: 3": ("'stps' is not a known key", "known keys"),
    "run: {stepz: 3}": ("'run.stepz'", "did you mean 'steps'"),
    "real_bach: 4": ("'real_bach'", "did you mean 'real_batch'"),
    "optimizer: {beta: [0.8, 0.9]}": ("'optimizer.beta'", "did you mean 'betas'"),
    "augmentation: {snr: [1, 2]}": ("'augmentation.snr'", "did you mean"),
    "speaker_loss: {speed: 2}": ("'speaker_loss.speed'", "known keys"),
    "run: {steps: many}": ("'run.steps' is 'many'", "integer"),
    "run: {steps: 1.5}": ("'run.steps' is 1.5", "integer"),
    "run: {steps: null}": ("'run.steps' is None", "integer"),
    "run: [1]": ("'run' is [1]", "dictionary"),
    "run: {save_every: 0}": ("'run.save_every' is 0", "greater than or equal to 1"),
    "run: {validate_every: -1}": ("'run.validate_every' is -1", "greater than or equal to 1"),
    "run: {max_minutes: .nan}": ("not valid YAML", "not finite"),
    "run: {max_minutes: .inf}": ("not valid YAML", "not finite"),
    "run: {autocast: perhaps}": ("'run.autocast' is 'perhaps'", "boolean"),
    "real_batch: x": ("'real_batch' is 'x'", "integer"),
    "pair_batch: [8]": ("'pair_batch' is [8]", "integer"),
    "left_context: -1": ("'left_context' is -1", "greater than or equal to 0"),
    "licenses: CC0-1.0": ("'licenses' is 'CC0-1.0'", "tuple"),
    "optimizer: {lr: fast}": ("'optimizer.lr' is 'fast'", "number"),
    "optimizer: {betas: [0.8]}": ("'optimizer.betas", "missing"),
    "pairs: {minutes: -1}": ("'pairs.minutes' is -1", "greater than or equal to 0"),
    "mel_scales: 1024": ("'mel_scales' is 1024", "tuple"),
    "frames: 99999999999999999999999": ("not valid YAML", "64 bits"),
    "base: none.yaml": ("none.yaml cannot be read", "no such file"),
    "base: [a]": ("'base' is ['a']", "the path of a config"),
    "a: &x 1": ("'a' is not a known key", "known keys"),
    "run: *x": ("not valid YAML", "aliases"),
    "run: !!python/object:os.system {}": ("not valid YAML", "tags"),
    "frames: 1\nframes: 2\n- x": ("not valid YAML", "line 4"),
    "frames: 1\nframes: 2": ("not valid YAML", "'frames' occurs twice"),
    "[]": ("must be a mapping", "keys to values"),
    "text": ("must be a mapping", "keys to values"),
}


@pytest.mark.parametrize("text", WRONG_CONFIGS)
def test_wrong_configs_name_key_and_fix(text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    steps = "" if text.startswith(("run", "[", "text")) else "run: {steps: 3}\n"
    path.write_text(steps + text)
    with pytest.raises(ConfigError) as caught:
        load_settings(EncoderConfig, path)
    key, fix = WRONG_CONFIGS[text]
    assert key in str(caught.value) and fix in str(caught.value)
