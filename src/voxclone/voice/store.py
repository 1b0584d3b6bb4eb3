"""Stored voices: a folder of voice files, found by name or by their enrollment.

Nothing is stored beside the folder, so a removed voice leaves nothing behind, and the voice itself
is what a repeated enrollment finds. Torch is not needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from voxclone.audio.report import ReferenceReport
from voxclone.errors import UsageError, VoiceError
from voxclone.release.release import Release, preset_names
from voxclone.voice.file import SUFFIX, read_metadata
from voxclone.voice.metadata import VoiceMetadata, check_name, shorten


@dataclass(frozen=True)
class StoredVoice:
    """A file of the folder: its metadata, or a sentence on why it is no voice."""

    name: str
    path: Path
    metadata: VoiceMetadata | None
    problem: str | None = None


def default_folder() -> Path:
    """The folder of stored voices, unless another one is named."""
    return Path.home() / ".local" / "share" / "voxclone" / "voices"


def voice_path(folder: Path, name: str) -> Path:
    """The file of a voice of this name. Raises VoiceError for what is no name."""
    return folder / f"{check_name(name)}{SUFFIX}"


def open_folder(folder: Path) -> Path:
    """The folder, made if it is not there, for its owner's eyes only. Raises VoiceError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise VoiceError(
            f"No folder for voices can be made at {folder}: {error.strerror}."
        ) from None
    return folder


def list_voices(folder: Path) -> list[StoredVoice]:
    """All voice files of the folder, by their names. A file that cannot be read is listed with its
    problem."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        name = path.name.removesuffix(SUFFIX)
        try:
            found.append(StoredVoice(check_name(name), path, read_metadata(path)))
        except VoiceError as error:
            found.append(StoredVoice(shorten(name), path, None, str(error)))
    return found


def find_stored(folder: Path, name: str) -> Path:
    """The file of a stored voice. Raises VoiceError, with the nearest name, if there is none."""
    path = voice_path(folder, name)
    if path.is_file():
        return path
    names = [voice.name for voice in list_voices(folder)]
    raise VoiceError(f"There is no voice {shorten(name)!r} in {folder}{_nearest(name, names)}.")


def find_enrollment(paths: Sequence[Path], folder: Path, enrollment_id: str) -> Path | None:
    """A voice that the same enrollment made: one of the files `paths`, else of the folder."""
    named = [path for path in paths if path.is_file()]
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
    if voice.endswith(".safetensors") or "/" in voice or "\\" in voice or Path(voice).is_file():
        return Path(voice)
    presets = preset_names(release)
    try:
        path = voice_path(folder, voice)
    except VoiceError:
        path = None
    stored = path is not None and path.is_file()
    if stored and voice in presets:
        raise UsageError(
            f"{voice!r} is a preset of {release.path} and a stored voice, too: name the file "
            f"{path} for the stored one, or remove it (`voxclone voices remove {voice}`)."
        )
    if stored:
        return path
    if voice in presets:
        return None
    names = [each.name for each in list_voices(folder)]
    kept = ", ".join(names[:20]) if names else "none"
    raise VoiceError(
        f"There is no voice {shorten(voice)!r}{_nearest(voice, [*presets, *names])}. Presets are "
        f"{', '.join(presets)}; stored in {folder}: {kept}."
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
    if not path.exists():
        path = find_stored(folder, name)
    try:
        path.unlink()
    except OSError as error:
        raise VoiceError(f"{path} cannot be removed: {error.strerror}.") from None
    return path


def _nearest(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
