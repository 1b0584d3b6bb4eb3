"""Whether a checkpoint may be gone on from with a given config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxclone.errors import ConfigError

FREE = frozenset(
    f"run.{name}"
    for name in (
        "steps",
        "save_every",
        "validate_every",
        "log_every",
        "max_minutes",
        "device",
        "most_skipped",
        "stop_when_sick",
        "sick_from",
    )
)
"""What may change from one start to the next without a word."""
SPEECH = "trained_on"
"""Beside the values of a config: which speech it was (`Subset.identity`)."""


def check_config(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> list[str]:
    """Raise ConfigError, naming the keys, if a checkpoint in `folder` was made under another
    config or on other speech. Returns notes: keys that only one of the two has come from another
    version of this program, and are no reason to refuse."""
    speech = _speech(before.get(SPEECH), now.get(SPEECH))
    old, new = (_flat({k: v for k, v in each.items() if k != SPEECH}) for each in (before, now))
    other = sorted(key for key in old.keys() & new.keys() if old[key] != new[key])
    other = [key for key in other if key not in FREE]
    if other:
        values = ", ".join(f"{key} ({old[key]} there, {new[key]} here)" for key in other)
        raise ConfigError(
            f"The checkpoint in {folder} was made with another config, in {values}: give these "
            "values back, name another folder with `--out`, or go on with what is changed by "
            "adding `--changed`."
        )
    if speech is not None:
        raise ConfigError(
            f"The checkpoint in {folder} was trained on other speech ({speech}): give back what it "
            "was trained on, name another folder with `--out`, or go on with other draws by adding "
            "`--changed`."
        )
    apart = sorted((old.keys() ^ new.keys()) - FREE)
    notes = [f"The checkpoint's config has other keys: {', '.join(apart)}."] if apart else []
    if SPEECH in now and SPEECH not in before:
        notes.append("The checkpoint does not say what speech it was trained on: not compared.")
    return notes


def _speech(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str | None:
    """How the speech there differs from that here; None where it does not, or is not known."""
    if before is None or now is None or before == now:
        return None
    there, here = (f"{each['clips']:,} clips of {each['hours']:g} h" for each in (before, now))
    if there == here:
        return f"{there}, but not the same ones or not in the same order"
    return f"{there} there, {here} here"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
