"""A sound file opened by what reads its kind: libsndfile, or PyAV.

Shapes: S samples, C channels.
"""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from voxclone.audio.decode import BLOCK_SAMPLES, Blocks
from voxclone.audio.headers import PatchedFile, SampleChunk, sample_chunk
from voxclone.audio.kinds import HEAD_BYTES, kind_of
from voxclone.audio.media import read_track, track_blocks
from voxclone.errors import AudioError
from voxclone.readers import refuse_lfs_pointer

UNKNOWN_FRAMES = 2**63 - 1  # of libsndfile, for a header without the length
MIN_UNCLAIMED_SECONDS = 0.1  # less than this after the samples is padding
READABLE = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF")
"""WAVEX is a WAV with a longer header."""


@dataclass(frozen=True, eq=False)
class Sound:
    """An open sound file. `blocks` yields its samples, float32 [S, C], from the beginning;
    `frames` is the length by its header, if that has one; `notes` are sentences on what was
    chosen or left out."""

    rate: int
    channels: int
    frames: int | None
    blocks: Blocks
    notes: tuple[str, ...] = ()


class BytesFile(io.BytesIO):
    """In damaged files libsndfile seeks to before the beginning; as in C, nothing moves then."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


class _Decoder(soundfile.SoundFile):  # type: ignore[misc]
    """Reads forwards only: where it can, soundfile seeks after each block, and that fails at the
    end of a FLAC stream whose header leaves the length open."""

    def seekable(self) -> bool:
        return False


def open_sound(stream: BinaryIO, path: Path | None, size: int, label: str) -> Sound:
    """Open a file of `size` bytes; `path` is that of `stream`, if it has one. `label` names it in
    messages. Raises AudioError for a file of an unknown kind, and for one that is damaged."""
    head = stream.read(HEAD_BYTES)
    kind = kind_of(head)
    refuse_lfs_pointer(head, label, AudioError)
    if kind is None:
        raise AudioError(
            f"{label} is not an audio file of a known kind (WAV, FLAC, Ogg, MP3, AIFF, M4A, WebM "
            "and others): convert it with `ffmpeg -i FILE out.wav`."
        )
    if kind.demuxer is not None:
        track = read_track(stream, kind, label)
        blocks = partial(track_blocks, stream, kind, label, track)
        return Sound(track.rate, track.channels, None, blocks, track.notes)
    chunk = sample_chunk(stream, size) if kind.name == "WAV" else None
    source: Any = path or stream
    if chunk is not None and not chunk.size and chunk.unclaimed:
        source = _counted(stream, chunk)
    try:
        with _decoder(source) as file:
            rate, channels, frames = file.samplerate, file.channels, file.frames
            if file.format not in READABLE:
                raise AudioError(f"{label} begins as {kind.name} but is {file.format} inside.")
    except soundfile.SoundFileError as error:
        raise AudioError(f"{label} cannot be decoded: {reason_of(error)}.") from None
    known = None if frames == UNKNOWN_FRAMES else frames
    notes = _unclaimed_note(chunk, frames / rate)
    return Sound(rate, channels, known, partial(_blocks, source, channels, label), notes)


def reason_of(error: Exception) -> str:
    """The reason as the end of a sentence; libsndfile's may be two sentences."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return str(text).removeprefix("Error : ").strip().rstrip(".").replace(". ", "; ")


def _counted(stream: BinaryIO, chunk: SampleChunk) -> PatchedFile:
    """A WAV with a header that counts its samples."""
    size = min(chunk.unclaimed, 2**32 - 2)
    return PatchedFile(stream, chunk.size_at, size.to_bytes(4, "little"))


def _unclaimed_note(chunk: SampleChunk | None, seconds: float) -> tuple[str, ...]:
    """A sentence if a WAV has more sound than the `seconds` that its header counts."""
    if chunk is None or not chunk.size:
        return ()
    more = seconds * chunk.unclaimed / chunk.size
    if more < MIN_UNCLAIMED_SECONDS:
        return ()
    return (
        f"The header counts {seconds:.1f} s; about {more:.1f} s after them were left out: convert "
        "the file with `ffmpeg -i FILE out.wav` if they are speech.",
    )


def _decoder(source: Any) -> _Decoder:
    if isinstance(source, Path):
        return _Decoder(os.fsencode(source))
    source.seek(0)
    return _Decoder(source)


def _blocks(source: Any, channels: int, label: str) -> Iterator[np.ndarray]:
    try:
        with _decoder(source) as file:
            while len(block_SC := file.read(BLOCK_SAMPLES // channels, "float32", True)):
                yield block_SC
    except soundfile.SoundFileError as error:
        raise AudioError(f"{label} cannot be decoded: {reason_of(error)}.") from None
