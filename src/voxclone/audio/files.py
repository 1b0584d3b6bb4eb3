"""Audio in: any file, bytes or array becomes float32 mono at 24 kHz.

Shapes: S samples, C channels.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from pydantic import Field

from voxclone.audio.containers import BytesFile, Sound, open_sound, reason_of
from voxclone.audio.decode import BLOCK_SAMPLES, check_header, convert, to_float
from voxclone.audio.kinds import HEAD_BYTES, kind_of
from voxclone.config import Settings
from voxclone.errors import AudioError, file_name, is_address, not_fetched
from voxclone.readers import is_piped, read_piped, refuse_lfs_pointer
from voxclone.spec import SAMPLING_RATE

AudioSource = str | os.PathLike[str] | bytes | bytearray | memoryview | tuple[Any, int]
"""A path, the bytes of a file, or (samples [S], [S, C] or [C, S], rate in Hz)."""

MAX_PART_SECONDS = 600.0
WHY_ALONE = {
    "opposite": "the channels are opposite in sign and would cancel each other",
    "cleaner": "it has the speech, and what the others add is noise",
    "speakers": "the others seem to have speakers of their own",
}
MAX_POSITION = 1e8  # seconds


class ReadingLimits(Settings):
    """Limits that are checked before a recording is decoded, or while it is."""

    max_seconds: float = Field(default=600.0, gt=0)
    max_bytes: int = Field(default=512 * 2**20, gt=0)


DEFAULT_LIMITS = ReadingLimits()


@dataclass(frozen=True, eq=False)
class Recording:
    """A decoded recording: mono, finite and not silent."""

    wave_S: np.ndarray  # float32 [S]
    sampling_rate: int  # of wave_S, always 24000
    native_rate: int
    channels: int
    duration: float  # seconds
    sha256: str  # of the file or bytes; of an array, of its little-endian float32 samples
    source: str  # the file's name without its folder
    clipped_share: float = 0.0  # samples at flat tops, counted before mixing and resampling
    notes: tuple[str, ...] = ()  # sentences on how it became mono at 24 kHz
    warnings: tuple[str, ...] = ()  # sentences


def read_wave(path: str | Path) -> np.ndarray:
    """Samples [S] as float32, mono (channels averaged), at 24 kHz. Raises AudioError."""
    return read_recording(path).wave_S


def read_recording(
    source: AudioSource, limits: ReadingLimits = DEFAULT_LIMITS, *, name: str | None = None
) -> Recording:
    """Decode `source`: a path, the bytes of a file, or (samples [S], [S, C] or [C, S], rate in Hz).

    The path `-` is standard input, and that of an open file descriptor may be a pipe. Integer
    samples are divided by the range of their type. `name` stands for bytes and arrays in messages
    and in the result. Raises AudioError, one sentence, for anything but a usable recording:
    missing, not audio, empty, too large or long, silent, not finite, a bad rate.
    """
    if isinstance(source, tuple):
        return _read_array(*source, limits, name)
    if isinstance(source, bytes | bytearray | memoryview):
        with BytesFile(source) as stream:
            size = stream.getbuffer().nbytes
            return _read_stream(stream, None, size, limits, name or "The recording", name)
    path = Path(source)
    if is_piped(path):
        content = read_piped(path, limits.max_bytes, AudioError)
        return read_recording(content, limits, name=name or "standard input")
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise AudioError(f"{path} is a folder, not a recording.")
        if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for ever
            raise AudioError(f"{path} is not an ordinary file.")
        with path.open("rb") as stream:
            return _read_stream(stream, path, info.st_size, limits, str(path), file_name(path.name))
    except FileNotFoundError:
        if is_address(str(path)):
            problem = not_fetched(str(path))
        elif "\\" in str(path) and os.sep == "/":
            problem = f"There is no file {path}: write / instead of \\ between folders."
        else:
            problem = f"There is no file {path}."
        raise AudioError(problem, "missing") from None
    except OSError as error:
        raise AudioError(f"{path} cannot be read: {reason_of(error)}.") from None


def read_part(
    path: Path, start: float, seconds: float, channel: int | None = None, *, name: str | None = None
) -> Recording:
    """A part of a file that may be hours long, `start` and `seconds` in seconds, read as
    `read_recording` reads a whole one; `channel` is the only one to use (from 0). What PyAV reads
    has no parts. Raises AudioError."""
    label = name or str(path)
    if not (0 <= start <= MAX_POSITION and 0 < seconds <= MAX_POSITION):
        raise AudioError(
            f"{label} is to begin at {start} s and to last {seconds} s: that is no part of a "
            "recording.",
            "missing",
        )
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        refuse_lfs_pointer(head, str(path), AudioError)
        kind = kind_of(head)
        if kind is not None and kind.demuxer is not None:
            raise AudioError(
                f"{path}: parts of {kind.name} cannot be read; convert it with `ffmpeg -i FILE "
                "out.flac`."
            )
        with soundfile.SoundFile(os.fsencode(path)) as file:
            rate, first = file.samplerate, round(start * file.samplerate)
            if not 0 <= first < file.frames or not 0 <= (channel or 0) < file.channels:
                raise AudioError(f"{label} is outside of {path}.", "missing")
            check_header(rate, file.channels, round(seconds * rate), label, MAX_PART_SECONDS)
            file.seek(first)
            samples_SC = file.read(round(seconds * rate), "float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        rule = "undecodable" if os.path.isfile(path) else "missing"
        raise AudioError(f"{path} cannot be decoded: {reason_of(error)}.", rule) from None
    if channel is not None:
        samples_SC = samples_SC[:, channel : channel + 1]
    return read_recording((samples_SC, rate), name=label)


def _read_stream(
    stream: BinaryIO,
    path: Path | None,
    size: int,
    limits: ReadingLimits,
    label: str,
    name: str | None,
) -> Recording:
    if size == 0:
        raise AudioError(f"{label} is empty (0 bytes).")
    if size > limits.max_bytes:
        megabytes, most = size / 2**20, limits.max_bytes / 2**20
        raise AudioError(
            f"{label} has {megabytes:.1f} MiB, and at most {most:.1f} can be read.", "too long"
        )
    sha256 = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    stream.seek(0)
    sound = open_sound(stream, path, size, label)
    check_header(sound.rate, sound.channels, sound.frames, label, limits.max_seconds)
    return _recording(sound, sha256, name or "bytes", label, limits)


def _read_array(samples: Any, rate: Any, limits: ReadingLimits, name: str | None) -> Recording:
    label = name or "The array"
    try:
        array = np.asarray(samples)
        if array.ndim not in (1, 2):
            raise ValueError(f"the shape is {list(array.shape)}")
        samples_SC = to_float(array if array.ndim == 2 else array[:, None])
        rate_int = int(rate)
        if rate_int != rate:
            raise ValueError(f"the rate {rate} is not a whole number of Hz")
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise AudioError(f"{label} cannot be used as samples [S] or [S, C]: {error}.") from None
    if samples_SC.shape[0] <= 8 < samples_SC.shape[1]:  # [C, S]: nobody records 8 samples
        samples_SC = samples_SC.T
    frames, channels = samples_SC.shape
    check_header(rate_int, channels, frames, label, limits.max_seconds)
    step = BLOCK_SAMPLES // channels

    def blocks() -> Iterator[np.ndarray]:
        yield from (samples_SC[start : start + step] for start in range(0, frames, step))

    content = np.ascontiguousarray(samples_SC, dtype="<f4")
    sha256 = hashlib.sha256(content.data).hexdigest()
    sound = Sound(rate_int, channels, frames, blocks)
    return _recording(sound, sha256, name or "array", label, limits)


def _recording(
    sound: Sound, sha256: str, source: str, label: str, limits: ReadingLimits
) -> Recording:
    rate, channels = sound.rate, sound.channels
    converted = convert(sound.blocks, rate, channels, label, limits.max_seconds)
    wave_S = np.ascontiguousarray(converted.wave_S)
    notes = list(sound.notes)
    if rate != SAMPLING_RATE:
        notes.append(f"Resampled from {rate} Hz to {SAMPLING_RATE} Hz.")
    warnings = list[str]()
    if converted.choice is not None:
        reason = converted.choice.reason
        number = converted.choice.channel + 1
        notes.append(f"Used channel {number} of {channels} alone: {WHY_ALONE[reason]}.")
        if reason == "speakers":
            warnings.append(
                f"Channels 1 to {channels} are loud at different times, as if each had its own "
                f"speaker: only channel {number}, the louder one, is used. If it is not the voice "
                "that you want, keep the other channel alone in a file of its own."
            )
    elif channels > 1:
        notes.append(f"Averaged {channels} channels to one.")
    return Recording(
        wave_S=wave_S,
        sampling_rate=SAMPLING_RATE,
        native_rate=rate,
        channels=channels,
        duration=len(wave_S) / SAMPLING_RATE,
        sha256=sha256,
        source=source,
        clipped_share=converted.clipped_share,
        notes=tuple(notes),
        warnings=tuple(warnings),
    )
