"""The loaded release, and what the worker's thread does with it.

Shapes: S samples, K codebooks, T frames, E embedding.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from voxclone.audio.checks import clip_checks, worst
from voxclone.audio.files import Recording
from voxclone.audio.report import ReferenceReport
from voxclone.cloning.enroll import decode_codes, enroll, make_reference
from voxclone.codec.model import Codec
from voxclone.errors import (
    ReleaseError,
    StorageError,
    VoiceError,
    VoiceExistsError,
    os_errors,
    printable,
)
from voxclone.io import scratch_folder
from voxclone.models.speaker_encoder import (
    OTHER_SPEAKERS,
    SAME_SPEAKER,
    Ge2eEmbedder,
    clip_embedding,
)
from voxclone.release.release import Release, load_codec
from voxclone.runtimes.archive import WORDS, Archive, pack_export
from voxclone.runtimes.export import check_name
from voxclone.runtimes.table import Runtime
from voxclone.serve.catalog import Catalog
from voxclone.serve.errors import paths_hidden, refused
from voxclone.serve.schemas import CheckInfo, ClipReport, Similarity, VoiceMade
from voxclone.tts.limits import Weights
from voxclone.tts.streams import Streams, Utterance
from voxclone.tts.tts import TTS
from voxclone.voice import store
from voxclone.voice.file import Voice, copy_voice
from voxclone.voice.metadata import Consent
from voxclone.voice.resolve import ResolvedVoice, resolve_file, resolve_preset, resolve_voice

ValueT = TypeVar("ValueT")
CACHED = 32
WARM_TEXT = "Hello."


@dataclass(frozen=True)
class NewVoice:
    """What a voice is to be called, by whose consent, and its metadata."""

    name: str
    consent: Consent
    transcript: str = ""
    description: str = ""


class LruCache(Generic[ValueT]):
    """The values that were asked for last, each as long as its key holds."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, tuple[Hashable, ValueT]] = OrderedDict()

    def get(self, name: str, key: Hashable, make: Callable[[], ValueT]) -> ValueT:
        known = self._values.pop(name, None)
        value = make() if known is None or known[0] != key else known[1]
        self._values[name] = key, value
        if len(self._values) > CACHED:
            self._values.popitem(last=False)
        return value

    def discard(self, name: str) -> None:
        self._values.pop(name, None)


class Engine:
    """A release that speaks and, with an encoder, makes voices."""

    def __init__(self, catalog: Catalog, tts: TTS) -> None:
        self.catalog, self.tts = catalog, tts
        self.release: Release = catalog.release
        self.codec: Codec = tts.codec
        self.sampling_rate = tts.codec.sampling_rate
        self._resolved: LruCache[ResolvedVoice] = LruCache()
        self._embedded: LruCache[Tensor] = LruCache()

    @classmethod
    def load(
        cls, catalog: Catalog, device: torch.device, weights: Weights | None = None
    ) -> "Engine":
        """Read the release and its encoder, and use all of it once. `weights` as of `TTS.load`."""
        codec = load_codec(catalog.release, catalog.encoder)
        tts = TTS.load(catalog.release, device=device, codec=codec, weights=weights)
        engine = cls(catalog, tts)
        engine.warm()
        return engine

    def warm(self) -> None:
        """Do a little of everything, so that the first request waits for nothing."""
        noise_S = torch.randn(self.sampling_rate, generator=torch.Generator().manual_seed(0)) / 10
        clip_embedding(noise_S)
        if self.codec.encoder is not None:
            with torch.inference_mode():
                self.codec.encode(noise_S[None].to(self.codec.device))
        if self.catalog.presets:
            streams = self.batch()
            streams.add(self.utterance(WARM_TEXT, self.catalog.presets[0], 0, 1.2))
            while len(streams):
                streams.step()

    def batch(self) -> Streams:
        """Where texts are spoken together."""
        return self.tts.streams()

    def utterance(self, text: str, voice: str, seed: int, cfg: float) -> Utterance:
        """A text in parts, with a voice by its name. Raises VoxcloneError."""
        return self.tts.utterance(text, self.resolved(voice).embedding_ND, seed=seed, cfg=cfg)

    def text_tokens(self, parts: list[str]) -> int:
        """Tokens of a text that the model reads."""
        return sum(len(self.tts.prompts.text_ids(part)) for part in parts)

    def resolved(self, name: str) -> ResolvedVoice:
        """A voice for this release. Raises VoxcloneError."""
        if self.catalog.find(name) is None:
            return self._resolved.get(name, None, lambda: self._preset(name))
        with self.catalog.reading(name) as path:
            return self._resolved.get(name, _state(path), lambda: resolve_file(path, self.release))

    def check(self, recording: Recording) -> ClipReport:
        """The checks of a recording. Raises AudioError."""
        return clip_report(make_reference([recording], self.release, self.codec).report)

    def enroll(
        self, recording: Recording, new: NewVoice, progress: Callable[[str], None]
    ) -> VoiceMade:
        """Make a voice of a recording and store it under a name that is free. Raises VoxcloneError,
        and what `progress` raises at the beginning of a stage: then nothing is stored."""
        path = self._free_path(new.name)
        made = enroll(
            recording, self.release, self.codec, name=new.name, consent=new.consent,
            measured=True, progress=progress,
        )  # fmt: skip
        texts = {"transcript": printable(new.transcript), "description": printable(new.description)}
        voice = replace(made.voice, metadata=made.voice.metadata.model_copy(update=texts))
        progress("saving")
        with self.catalog.paths_hidden():
            voice.save(path, new=True)
        return self._made(new.name, clip_report(made.reference.report))

    def import_voice(self, content: bytes, name: str | None) -> VoiceMade:
        """Store a voice file under its own name or another. It must be one
        that this release can speak with. Raises VoxcloneError."""
        with scratch_folder(store.open_folder(self.catalog.folder)) as folder:
            uploaded = folder / "the file"
            uploaded.write_bytes(content)
            with paths_hidden({str(uploaded): "the file"}):  # which its errors may quote
                voice = Voice.load(uploaded)
            with self.catalog.paths_hidden(folder):
                resolve_voice(voice, self.release, uploaded)
            path = self._free_path(name or voice.metadata.name)
            renamed = voice.metadata.model_copy(update={"name": name or voice.metadata.name})
            with self.catalog.paths_hidden(folder):
                copy_voice(uploaded, path, renamed, new=True)
        return self._made(renamed.name)

    def rename(self, name: str, target: str) -> VoiceMade:
        """Give a stored voice another name. Raises VoxcloneError."""
        self.catalog.find_stored(name)
        self._free_path(target)
        with self.catalog.reading(name):
            store.rename_voice(self.catalog.folder, name, target)
        self._discard(name)
        return self._made(target)

    def delete(self, name: str) -> None:
        """Delete a stored voice and all that is remembered of it. Raises VoxcloneError."""
        self.catalog.find_stored(name)
        with self.catalog.paths_hidden():
            store.remove_voice(self.catalog.folder, name)
        self._discard(name)

    def reference(self, name: str) -> Tensor:
        """What a stored voice keeps of its recording: its decoded codes [S]. Raises
        VoxcloneError."""
        self.catalog.find_stored(name)
        voice = self.resolved(name).source
        assert voice is not None
        return decode_codes(voice.codes_KT, self.codec)

    def similarity(self, name: str, wave_S: Tensor) -> Similarity:
        """Speech [S] against the reference of a stored voice. Raises VoxcloneError."""
        with self.catalog.reading(name) as path:
            state = _state(path)
        reference_E = self._embedded.get(name, state, lambda: clip_embedding(self.reference(name)))
        return Similarity(
            similarity=round(float(clip_embedding(wave_S) @ reference_E), 4),
            same_speaker=SAME_SPEAKER,
            other_speakers=OTHER_SPEAKERS,
            network=Ge2eEmbedder.name,
        )

    def export(self, name: str, runtime: Runtime, replace_preset: str | None) -> Archive:
        """A voice as a program reads it, packed. Raises VoxcloneError for a voice that cannot be
        exported, and ApiError where the program cannot use this release."""
        if runtime.name == "codes":
            self.catalog.find_stored(name)  # presets hold none
        voice = self.resolved(name)
        if replace_preset is None:
            with self.catalog.paths_hidden():
                check_name(voice.name, runtime, self.release, WORDS, replaces=False)
        folder = store.open_folder(self.catalog.folder)
        with scratch_folder(folder) as out, refused("runtime"), self.catalog.paths_hidden(out):
            return pack_export(voice, runtime, self.release, out, replace_preset)

    def _free_path(self, name: str) -> Path:
        """Where a new voice is to be stored: a name is refused before the work, and whatever writes
        makes sure that it is still free. Raises VoxcloneError."""
        path = self.catalog.free_path(name)
        if path.exists():
            raise VoiceExistsError(f"There is a voice {name!r} already: choose another name.")
        return path

    def _made(self, name: str, report: ClipReport | None = None) -> VoiceMade:
        """What is answered of a voice that is new, or has a new name."""
        voice = self.catalog.info(name)
        return VoiceMade(
            id=name, name=name, created_at=voice.created_at, voice=voice, report=report
        )

    def _preset(self, name: str) -> ResolvedVoice:
        """A preset. Raises ReleaseError where the release does not hold it whole."""
        try:
            return resolve_preset(name, self.release)
        except VoiceError as error:
            raise ReleaseError(str(error)) from None

    def _discard(self, name: str) -> None:
        self._resolved.discard(name)
        self._embedded.discard(name)


def clip_report(report: ReferenceReport) -> ClipReport:
    """The checks of a reference, and its report in sentences."""
    checks = clip_checks(report)
    return ClipReport(
        verdict=worst(checks),
        checks=[CheckInfo(**asdict(check)) for check in checks],
        sentences=report.sentences(),
        used_seconds=report.duration_out,
        start=report.start,
        end=report.end,
    )


def _state(path: Path) -> Hashable:
    """Changes with the content of a file. Raises StorageError."""
    with os_errors(f"{path} cannot be read", StorageError):
        stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
