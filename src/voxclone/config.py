"""Strict settings: pydantic models read from YAML, with dotted overrides.

An unknown key is an error that names the nearest valid one. A config file may start from another:
`base: other.yaml` (a path relative to the file) is read first and the file is laid over it.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from voxclone.errors import ConfigError
from voxclone.readers import parse_yaml, read_yaml
from voxclone.records import parse_record

MAX_BASES = 8


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, numbers are finite, and values do not change
    after loading. `renamed` has keys of older versions, dotted, and what each is now (nothing: it
    was removed)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = {}


SettingsT = TypeVar("SettingsT", bound=Settings)


def load_settings(
    model: type[SettingsT], path: str | Path | None = None, overrides: Iterable[str] = ()
) -> SettingsT:
    """Read `path` (YAML) into `model` and apply overrides such as `optimizer.lr=1e-4`.

    Raises ConfigError for a missing file, bad YAML, an unknown key or an impossible value.
    """
    values: dict[str, Any] = {} if path is None else _read_config(Path(path))
    label, before = "the given settings" if path is None else str(path), deepcopy(values)
    given = list(overrides)
    for text in given:
        key, separator, raw = text.partition("=")
        if not separator:
            raise ConfigError(f"The override {text!r} is not of the form key=value.")
        node = values
        *parents, last = key.strip().split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"The override {text!r} goes into {parent!r}, which is no group.")
        node[last] = parse_yaml(raw, f"The value of the override {text!r}")
    if path is not None and given:
        with suppress(ConfigError):  # a mistake of the file itself is named below
            parse_record(model, before, label)
            label = f"`--set` (over {label})"
    return parse_record(model, values, label)


def _read_config(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The values of a config file, laid over those of the files that it starts from."""
    values = read_yaml(path, ConfigError, "The config")
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"The config {path} must be a mapping of keys to values.")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"In {path}: 'base' is {base!r}: it must be the path of a config.")
    if path.resolve() in above or len(above) >= MAX_BASES:
        raise ConfigError(f"The config {path} starts from itself: mend its `base`.")
    return _merge(_read_config(path.parent / base, (*above, path.resolve())), values)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
