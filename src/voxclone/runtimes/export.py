"""A voice, written for a runtime and read back by its rules before it appears."""

import os
from contextlib import AbstractContextManager
from pathlib import Path

from voxclone.errors import QualityError, UsageError
from voxclone.io import atomic_add, atomic_folder, refuse_inside, require_new
from voxclone.release.params import is_voice_name
from voxclone.release.release import Release
from voxclone.runtimes.readers import ALIASES, PRESETS
from voxclone.runtimes.reading import Reading
from voxclone.runtimes.table import Runtime
from voxclone.runtimes.verify import Place, read_voice
from voxclone.voice.resolve import Chosen


def export_voice(
    chosen: Chosen,
    runtime: Runtime,
    release: Release,
    out: Path,
    *,
    name: str | None = None,
    replace_preset: str | None = None,
) -> Reading:
    """Write a voice to `out` as `runtime` reads it, under its own name, `name`, or that of a preset
    which it replaces. Gives what the runtime would make of it.

    `out` appears complete or not at all. Raises UsageError for a name or place that cannot be,
    ReleaseError for what the disk refuses, and QualityError, with every trap, if the runtime would
    not say anything in this voice.
    """
    out = Path(os.path.abspath(out))  # `.` has no name; a link stays a link
    chosen_name = replace_preset or name or chosen.name
    if name is not None and replace_preset is not None:
        raise UsageError("Give either --name or --replace-preset: both would name the voice.")
    check_name(chosen_name, runtime, release, replaces=replace_preset is not None)
    refuse_inside(out, release.path)
    with _appearing(runtime, out) as place:
        runtime.write(chosen, chosen_name, release, place)
        reading = read_voice(Place.of(runtime, place, release), chosen_name, chosen)
        if not reading.heard:
            raise QualityError(
                f"{runtime.name} would not speak in the voice {chosen_name!r}, so nothing was "
                f"written: {' '.join(reading.traps)}".replace(str(place), str(out))
            )
    return reading


def check_name(name: str, runtime: Runtime, release: Release, *, replaces: bool) -> None:
    """Raise UsageError unless a voice may be called `name` in `runtime`."""
    if not is_voice_name(name):
        raise UsageError(f"{name!r} cannot be the name of a file: choose another with --name.")
    if replaces:
        if runtime.place != "release":
            raise UsageError(f"{runtime.name} is given no release: --replace-preset is for others.")
        known = set(release.params.voices)
        if runtime.name in ("voxtral_tts_rs", "comfyui"):
            known = set(PRESETS)
        if name not in known:
            raise UsageError(
                f"There is no preset {name!r} to replace: {', '.join(sorted(known)) or 'none'}."
            )
        return
    if runtime.presets_only and name not in PRESETS:
        raise UsageError(
            f"{runtime.name} offers the names of the 20 presets only: replace one with "
            "--replace-preset, such as casual_male."
        )
    if runtime.place == "release" and name in release.params.voices:
        raise UsageError(
            f"{release.path} has a voice {name!r} already: choose another with --name, or say "
            f"--replace-preset {name}."
        )
    if runtime.name == "vllm-omni" and (name != name.lower() or name == "default"):
        raise UsageError(
            f"vLLM-Omni cannot be asked for {name!r}, because it puts names into lower case and "
            "takes 'default' for none: choose another with --name."
        )
    if runtime.name == "voxtral_tts_rs" and name.lower() in ALIASES:
        raise UsageError(
            f"{name!r} means {ALIASES[name.lower()]!r} in voxtral_tts_rs: choose another with "
            "--name."
        )


def _appearing(runtime: Runtime, out: Path) -> AbstractContextManager[Path]:
    """Where to write; what is written there takes its place only if the block ends well."""
    if runtime.place == "file":
        if out.suffix != runtime.suffix:
            raise UsageError(f"{runtime.name} reads a file *{runtime.suffix}: name {out} so.")
        if out.is_dir():
            raise UsageError(f"{out} is a directory: name the file to write.")
        if not out.parent.is_dir():
            raise UsageError(f"{out} cannot be written: there is no directory {out.parent}.")
        return atomic_add(out)
    if runtime.place == "voices" and out.is_dir():
        return atomic_add(out)
    if runtime.place == "voices" and out.exists():
        raise UsageError(f"{out} is a file: {runtime.name} reads a folder of voices.")
    require_new(out)
    return atomic_folder(out)
