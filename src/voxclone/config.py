"""Strict settings: pydantic models read from YAML, with dotted overrides.

An unknown key is an error that names the nearest valid one. A config file may start from another:
`base: other.yaml` (a path relative to the file) is read first and the file is laid over it.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from voxclone.errors import ConfigError


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused and values do not change after loading.
    `renamed` has keys of older versions, dotted, and what each is now (nothing: it was removed).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    renamed: ClassVar[Mapping[str, str]] = {}


SettingsT = TypeVar("SettingsT", bound=Settings)


def load_settings(
    model: type[SettingsT], path: str | Path | None = None, overrides: Iterable[str] = ()
) -> SettingsT:
    """Read `path` (YAML) into `model` and apply overrides such as `optimizer.lr=1e-4`.

    Raises ConfigError for a missing file, bad YAML, an unknown key or an impossible value.
    """
    values: dict[str, Any] = {} if path is None else _read_yaml(Path(path))
    for text in overrides:
        key, separator, raw = text.partition("=")
        if not separator:
            raise ConfigError(f"The override {text!r} is not of the form key=value.")
        node = values
        *parents, last = key.strip().split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"The override {text!r} goes into {parent!r}, which is no group.")
        try:
            node[last] = yaml.safe_load(raw)
        except (yaml.YAMLError, ValueError) as error:  # a date or number that there is not
            raise ConfigError(
                f"The value of the override {text!r} is not valid YAML: {_reason(error)}."
            ) from None
    return parse_settings(model, values, str(path) if path else "the given settings")


def parse_settings(model: type[SettingsT], values: dict[str, Any], where: str) -> SettingsT:
    """Check `values` against `model`; raises ConfigError with one sentence for each mistake."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(model, dict(item)) for item in error.errors()]
        raise ConfigError(f"In {where}: " + " ".join(lines)) from None


def _explain(model: type[BaseModel], item: dict[str, Any]) -> str:
    location = [str(part) for part in item["loc"]]
    name = ".".join(location)
    renamed: Mapping[str, str] = getattr(model, "renamed", {})
    if item["type"] == "extra_forbidden" and name in renamed:
        now = renamed[name]
        return f"{name!r} is now {now}." if now else f"{name!r} was removed: leave it out."
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}."
        return f"{name!r} is not a known key; {hint}"
    if item["type"] == "missing":
        return f"{name!r} is missing."
    message = item["msg"].removeprefix("Value error, ")
    if not location:  # several values contradict each other: the message names them
        return f"{message}."
    return f"{name!r} is {item['input']!r}: {message[:1].lower()}{message[1:]}."


def _fields_at(model: type[BaseModel], parents: list[str]) -> list[str]:
    for name in parents:
        field = model.model_fields.get(name)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"The config {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"The config {path} is not valid YAML: {_reason(error)}.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"The config {path} must be a mapping of keys to values.")
    base = values.pop("base", None)
    return values if base is None else _merge(_read_yaml(path.parent / base), values)


def _reason(error: Exception) -> str:
    """What is wrong with YAML, as the end of a sentence; its own words are several lines."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is None or mark is None:
        return " ".join(str(error).split())
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})"


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged
