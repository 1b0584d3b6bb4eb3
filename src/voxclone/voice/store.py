"""Stored voices: a folder of voice files, found by name or by their enrollment.

Nothing is stored beside the folder, so a removed voice leaves nothing behind, and the voice itself
is what a repeated enrollment finds. Torch is not needed.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from voxclone.audio.report import ReferenceReport
from voxclone.errors import (
    StorageError,
    UnknownVoiceError,
    UsageError,
    VoiceError,
    os_errors,
    reason,
    shorten,
)
from voxclone.release.release import Release, preset_names
from voxclone.voice.file import SUFFIX, copy_voice, read_metadata
from voxclone.voice.metadata import VoiceMetadata, check_name, is_name


@dataclass(frozen=True)
class StoredVoice:
    """A file of the folder: its metadata, or a sentence on why it is no voice."""

    name: str
    path: Path
    metadata: VoiceMetadata | None
    problem: str | None = None


def default_folder() -> Path:
    """The folder of stored voices, unless another one is named: below XDG_DATA_HOME, where that is
    set. Raises UsageError where no home directory is known."""
    data = os.environ.get("XDG_DATA_HOME", "")
    if os.path.isabs(data):  # the specification says to ignore others
        return Path(data) / "voxclone" / "voices"
    try:
        return Path.home() / ".local" / "share" / "voxclone" / "voices"
    except RuntimeError:
        raise UsageError(
            "Your home directory is not known (HOME is not set): name the folder of stored voices "
            "with --voices."
        ) from None


def voice_path(folder: Path, name: str) -> Path:
    """The file of a voice of this name. Raises VoiceError for what is no name."""
    return folder / f"{check_name(name)}{SUFFIX}"


def open_folder(folder: Path) -> Path:
    """The folder, made if it is not there, for its owner's eyes only. Raises StorageError."""
    problem = f"No folder for voices can be made at {shorten(folder)}"
    with os_errors(problem, StorageError):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError:
            raise StorageError(f"{problem}: a file is there.") from None
    return folder


def list_voices(folder: Path) -> list[StoredVoice]:
    """All voice files of the folder, by their names. A file that cannot be read is listed with its
    problem. Raises StorageError for a folder that is none, or that may not be read."""
    found = []
    with os_errors(f"The stored voices in {shorten(folder)} cannot be listed", StorageError):
        if os.path.lexists(folder):  # a folder that is missing holds none
            os.listdir(folder)
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        name = path.name.removesuffix(SUFFIX)
        try:
            found.append(StoredVoice(check_name(name), path, read_metadata(path)))
        except VoiceError as error:
            if path.exists():  # else it was removed meanwhile
                found.append(StoredVoice(shorten(name), path, None, str(error)))
    return found


def stored_path(folder: Path, name: str) -> Path | None:
    """The file of a stored voice, or None if there is none. Raises VoiceError for what is no name,
    and for what lies at the place of the file and is none."""
    path = voice_path(folder, name)
    if os.path.exists(path) and not os.path.isfile(path):
        raise VoiceError(
            f"{name!r} is stored, but it is no voice: {path.name} is a directory or no ordinary "
            "file."
        )
    return path if os.path.exists(path) else None


def find_stored(folder: Path, name: str) -> Path:
    """The file of a stored voice. Raises VoiceError, with the nearest name, if there is none."""
    path = stored_path(folder, name)
    if path is not None:
        return path
    names = [voice.name for voice in list_voices(folder)]
    raise UnknownVoiceError(
        f"There is no voice {shorten(name)!r} in {folder}{_nearest(name, names)}."
    )


def find_enrollment(paths: Sequence[Path], folder: Path, enrollment_id: str) -> Path | None:
    """A voice that the same enrollment made: one of the files `paths`, else of the folder."""
    named = [path for path in paths if os.path.isfile(path)]
    for path in [*named, *sorted(folder.glob(f"*{SUFFIX}"))]:
        try:
            if read_metadata(path).enrollment_id == enrollment_id:
                return path
        except VoiceError:
            continue  # a damaged file is not the one; `list_voices` names its problem
    return None


def find_voice(voice: str, release: Release, folder: Path) -> Path | None:
    """The file that `voice` means: a path, or the name of a stored voice; None for a preset.

    Raises UsageError for a name that is both, and VoiceError for one that is neither.
    """
    if voice.endswith(".safetensors") or "/" in voice or "\\" in voice or os.path.isfile(voice):
        return Path(voice)
    return find_by_name(voice, release, folder)


def find_by_name(voice: str, release: Release, folder: Path) -> Path | None:
    """As `find_voice`, for a name that must not be taken for a path."""
    path = stored_path(folder, voice) if is_name(voice) else None
    presets = preset_names(release)
    if path is not None and voice in presets:
        raise UsageError(
            f"{voice!r} is a preset of {release.path} and a stored voice, too: name the file "
            f"{path} for the stored one, or remove it (`voxclone voices remove {voice}`)."
        )
    if path is not None or voice in presets:
        return path
    raise unknown_voice(voice, presets, folder, str(folder))


def unknown_voice(voice: str, presets: Sequence[str], folder: Path, place: str) -> VoiceError:
    """The error for a name that is neither a preset's nor a stored voice's; `place` is how it calls
    the folder. Raises StorageError where the folder cannot be listed."""
    names = [each.name for each in list_voices(folder)]
    kept = ", ".join(names[:20]) if names else "none"
    return UnknownVoiceError(
        f"There is no voice {shorten(voice)!r}{_nearest(voice, [*presets, *names])}. Presets "
        f"are {', '.join(presets)}; stored in {place}: {kept}."
    )


def reference_report(metadata: VoiceMetadata) -> ReferenceReport | None:
    """The report of the reference in a voice file; None if it is damaged."""
    try:
        return ReferenceReport.from_dict(metadata.preprocessing)
    except (ValueError, TypeError, ArithmeticError):
        return None


def remove_voice(folder: Path, name: str) -> Path:
    """Delete a stored voice. Nothing else was derived from it. Raises VoiceError."""
    path = voice_path(folder, name)
    if not os.path.lexists(path):
        path = find_stored(folder, name)
    try:
        path.unlink()
    except FileNotFoundError:
        raise UnknownVoiceError(f"The voice {shorten(name)!r} was removed meanwhile.") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be removed: {reason(error)}.") from None
    return path


def rename_voice(folder: Path, name: str, target: str) -> Path:
    """Give a stored voice another name. Raises VoiceError, VoiceExistsError if that is taken."""
    path = find_stored(folder, name)
    renamed = voice_path(folder, target)
    copy_voice(path, renamed, read_metadata(path).model_copy(update={"name": target}), new=True)
    path.unlink(missing_ok=True)
    return renamed


def _nearest(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, [each for each in names if each != name], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
