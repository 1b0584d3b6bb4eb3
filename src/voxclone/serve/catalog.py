"""The voices of a server: presets of the release, and the folder of stored ones. Without torch."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from voxclone.errors import (
    ReleaseError,
    UnknownVoiceError,
    VoiceError,
    VoiceExistsError,
    shorten,
)
from voxclone.release.encoder_file import find_encoder
from voxclone.release.release import Release, preset_names
from voxclone.serve.errors import hide_paths, paths_hidden
from voxclone.serve.schemas import ConsentInfo, UploadedVoice, VoiceEntry, VoiceInfo, VoiceList
from voxclone.serve.settings import ServeSettings
from voxclone.voice import store
from voxclone.voice.file import SUFFIX, read_metadata
from voxclone.voice.metadata import VoiceMetadata, check_name, is_name


class Catalog:
    """What is there by name. Nothing of a request is ever taken for a path."""

    def __init__(self, release: Release, settings: ServeSettings, encoder: Path | None) -> None:
        """`encoder` is a file to use, or None for the best there is. Raises ReleaseError if it was
        made for another release."""
        self.release, self.folder, self.model = release, settings.voices, settings.model
        self.presets = preset_names(release)
        self.encoder: Path | None = None
        self.why_not_clone: str | None = None
        self._most = settings.limits.voices
        self._names = {
            f"{self.folder}/": "",
            str(self.folder): "this server",
            str(release.path): self.model,
        }
        try:
            self.encoder = find_encoder(release, encoder)
        except ReleaseError as error:
            if encoder is not None:
                raise
            self.why_not_clone = hide_paths(str(error), self._names)

    def paths_hidden(self, scratch: Path | None = None) -> AbstractContextManager[None]:
        """Within, errors have no paths of this machine, nor of a scratch folder: see
        `errors.paths_hidden`."""
        return paths_hidden(self._names | ({} if scratch is None else {f"{scratch}/": ""}))

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """The file of a stored voice, to be read within. Raises VoiceError without a path, also if
        the file was deleted meanwhile."""
        path = self.find_stored(name)
        try:
            with self.paths_hidden():
                yield path
        except VoiceError:
            self.find_stored(name)
            raise

    def find(self, name: str) -> Path | None:
        """The file of a stored voice, or None for a preset. Raises VoiceError."""
        path = store.stored_path(self.folder, name) if is_name(name) else None
        if path is not None and name in self.presets:
            raise VoiceError(
                f"{name!r} is a preset of the release and a stored voice, too: one of them must "
                "get another name at the server."
            )
        if path is None and name not in self.presets:
            raise store.unknown_voice(name, self.presets, self.folder, "this server")
        return path

    def find_stored(self, name: str) -> Path:
        """The file of a stored voice. Raises VoiceError for a preset, too."""
        path = self.find(name)
        if path is None:
            raise UnknownVoiceError(
                f"{name!r} is a preset of the release: only stored voices can be read or changed."
            )
        return path

    def free_path(self, name: str) -> Path:
        """Where a new voice is to be stored. Raises VoiceError for what is no name or one too many,
        and VoiceExistsError for a preset's; whether a file is there shows when it is written."""
        check_name(name)
        if name in self.presets:
            raise VoiceExistsError(f"{name!r} is a preset of the release: choose another name.")
        path = store.voice_path(store.open_folder(self.folder), name)
        stored = len(list(self.folder.glob(f"*{SUFFIX}")))
        if stored >= self._most and not path.exists():
            raise VoiceError(f"{self._most} voices are stored, and no more can be: delete one.")
        return path

    def list(self) -> VoiceList:
        """Presets first, then the stored voices; a damaged file is listed with its problem. Raises
        StorageError."""
        voices = [VoiceEntry(id=name, name=name, kind="preset") for name in self.presets]
        uploaded = []
        for voice in store.list_voices(self.folder):
            problem = voice.problem and hide_paths(voice.problem, self._names)
            entry = VoiceEntry(id=voice.name, name=voice.name, kind="stored", problem=problem)
            voices.append(entry)
            if voice.metadata is not None:
                uploaded.append(_uploaded(voice.name, voice.path, voice.metadata))
        return VoiceList(voices=voices, uploaded_voices=uploaded)

    def info(self, name: str) -> VoiceInfo:
        """All that a stored voice says of itself. Raises VoiceError."""
        with self.reading(name) as path:
            metadata = read_metadata(path)
        report = store.reference_report(metadata)
        values = _uploaded(name, path, metadata).model_dump()
        return VoiceInfo(
            **values,
            consent_record=ConsentInfo(**metadata.consent.model_dump()),
            license=metadata.license,
            reference_seconds=metadata.reference_seconds,
            reference=[] if report is None else report.sentences(),
            similarity=metadata.similarity,
            tool=shorten(metadata.tool),
        )


def _uploaded(name: str, path: Path, metadata: VoiceMetadata) -> UploadedVoice:
    try:
        stat = path.stat()
        size, written = stat.st_size, int(stat.st_mtime)
    except FileNotFoundError:  # deleted meanwhile
        size, written = 0, 0
    return UploadedVoice(
        name=name,
        consent=metadata.consent.kind,
        created_at=written,
        file_size=size,
        ref_text=metadata.transcript or None,
        speaker_description=metadata.description or None,
    )
