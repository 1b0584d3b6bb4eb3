"""Voices written for a runtime, and read back by its rules before they get their final names."""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from voxclone.errors import QualityError, UsageError
from voxclone.io import atomic_add, atomic_folder, refuse_inside, require_new
from voxclone.outputs import EXPORT, PRESET, check_output
from voxclone.release.params import is_voice_name
from voxclone.release.release import Release
from voxclone.runtimes.readers import ALIASES, PRESETS
from voxclone.runtimes.reading import Reading
from voxclone.runtimes.table import Runtime
from voxclone.runtimes.verify import RuntimeInput, read_voice
from voxclone.runtimes.writers import copy_release
from voxclone.voice.resolve import ResolvedVoice


@dataclass(frozen=True)
class ExportWords:
    """How messages say to name a voice: those of the command line, unless others are given."""

    rename: str = "choose another with --name"
    replace: str = "--replace-preset"


def export_voice(
    voice: ResolvedVoice,
    runtime: Runtime,
    release: Release,
    out: Path,
    *,
    name: str | None = None,
    replace_preset: str | None = None,
    symbolic: bool = False,
    source: Path | None = None,
    words: ExportWords = ExportWords(),
) -> Reading:
    """Write a voice to `out` for `runtime`, under its own name, `name`, or that of a preset that
    it replaces. Gives what the runtime would load. If `symbolic`, the weights of a release folder
    are symbolic links. `source` is the file of the voice, if it has one.

    `out` appears whole or not at all. Raises UsageError for an impossible name or path,
    ReleaseError for errors of the disk, and QualityError, with every problem, if the runtime would
    not speak with this voice.
    """
    out = Path(os.path.abspath(out))  # `.` has no name; a link stays a link
    own_name = replace_preset or name or voice.name
    if name is not None and replace_preset is not None:
        raise UsageError("Give either --name or --replace-preset: both would name the voice.")
    check_name(own_name, runtime, release, words, replaces=replace_preset is not None)
    refuse_inside(out, release.path)
    with _atomic(runtime, out, own_name, [source, release.path]) as path:
        if runtime.input == "release":
            copy_release(release.path, path, symbolic=symbolic)
        runtime.write(voice, own_name, release, path)
        reading = read_voice(RuntimeInput.of(runtime, path, release), own_name, voice)
        if not reading.usable:
            raise QualityError(
                f"{runtime.name} would not speak with the voice {voice.name!r}, so nothing was "
                f"written: {' '.join(reading.problems)}".replace(str(path), str(out))
            )
    return reading


def check_name(
    name: str, runtime: Runtime, release: Release, words: ExportWords, *, replaces: bool
) -> None:
    """Raise UsageError unless a voice may be called `name` in `runtime`."""
    if not is_voice_name(name):
        raise UsageError(f"{name!r} cannot be the name of a file: {words.rename}.")
    if replaces:
        if runtime.input != "release":
            raise UsageError(f"{runtime.name} is given no release: {words.replace} is for others.")
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
            f"{words.replace}, such as casual_male."
        )
    if runtime.input == "release" and name in release.params.voices:
        raise UsageError(
            f"{release.path} has a voice {name!r} already: {words.rename}, or replace it with "
            f"{words.replace} {name}."
        )
    if runtime.name == "vllm-omni" and (name != name.lower() or name == "default"):
        raise UsageError(
            f"vLLM-Omni cannot find {name!r}, because it puts names into lower case and takes "
            f"'default' for none: {words.rename}."
        )
    if runtime.name == "voxtral_tts_rs" and name.lower() in ALIASES:
        raise UsageError(
            f"{name!r} means {ALIASES[name.lower()]!r} in voxtral_tts_rs: {words.rename}."
        )


def _atomic(
    runtime: Runtime, out: Path, name: str, inputs: list[Path | None]
) -> AbstractContextManager[Path]:
    """A temporary path to write to, which replaces `out` only if the block ends well."""
    if runtime.input == "file":
        if out.suffix != runtime.suffix:
            raise UsageError(f"{runtime.name} reads a file *{runtime.suffix}: name {out} so.")
        check_output(out, EXPORT, inputs)
        return atomic_add(out)
    if runtime.input == "voices" and out.is_dir():
        check_output(out / f"{name}.pt", PRESET, inputs)
        return atomic_add(out)
    if runtime.input == "voices" and out.exists():
        raise UsageError(f"{out} is a file: {runtime.name} reads a folder of voices.")
    require_new(out)
    return atomic_folder(out)
