"""Speech in the formats that clients ask for, encoded as it is made.

Samples go in as they come, bytes come out as soon as the format allows it: for pcm, wav, mp3, opus
and aac with every piece; for flac, whose header holds length and checksum, at the end.

Shapes: S samples.
"""

import importlib
import struct
from typing import Any, Protocol

import numpy as np
import soundfile

from voxclone.audio.ogg import with_fixed_serial
from voxclone.audio.writing import to_int16
from voxclone.errors import MissingExtraError
from voxclone.serve.schemas import Format

MEDIA_TYPES: dict[Format, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
AAC_RATE = 64000  # bits a second
MP3_LEVEL = 0.5  # of LAME's constant rates at this sampling rate: 80 kbit/s
MP3_KBITS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # MPEG-2, Layer III
KINDS: dict[Format, dict[str, Any]] = {
    "mp3": {
        "format": "MP3",
        "subtype": "MPEG_LAYER_III",
        "bitrate_mode": "CONSTANT",
        "compression_level": MP3_LEVEL,
    },
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
}
UNKNOWN_SIZE = 0xFFFFFFFF  # as OpenAI's own streams have it


class Encoder(Protocol):
    """Samples in, bytes out."""

    def add(self, wave_S: np.ndarray) -> bytes:
        """The bytes that are ready after these samples (float32 [S])."""
        ...

    def finish(self) -> bytes:
        """The bytes that are left."""
        ...


def open_encoder(name: Format, rate: int) -> Encoder:
    """An encoder for one stream of samples at a rate. Raises MissingExtraError for aac without
    PyAV."""
    if name == "pcm":
        return PcmEncoder()
    if name == "wav":
        return PcmEncoder(wave_header(rate))
    if name == "aac":
        return AacEncoder(rate)
    return SoundfileEncoder(name, rate)


def is_streamed(name: Format) -> bool:
    """Whether a format can be sent while it is made."""
    return name != "flac"


def pcm16(wave_S: np.ndarray) -> bytes:
    """Samples in 16 bits, little-endian; what is beyond full scale is clipped."""
    return to_int16(wave_S).astype("<i2").tobytes()


def wave_header(rate: int, samples: int | None = None) -> bytes:
    """Of a mono WAV in 16 bits. Where the length is not known yet, both sizes are the largest
    there are: libsndfile, ffmpeg, browsers and Python's `wave` then read to the end."""
    size = UNKNOWN_SIZE if samples is None else 2 * samples
    whole = UNKNOWN_SIZE if samples is None else 36 + size
    form = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    return b"RIFF%sWAVEfmt %sdata%s" % (struct.pack("<I", whole), form, struct.pack("<I", size))


class PcmEncoder:
    """Raw samples in 16 bits, after a header if there is one."""

    def __init__(self, header: bytes = b"") -> None:
        self._header = header

    def add(self, wave_S: np.ndarray) -> bytes:
        header, self._header = self._header, b""
        return header + pcm16(wave_S)

    def finish(self) -> bytes:
        return self._header


class SoundfileEncoder:
    """MP3, Ogg Opus and FLAC by libsndfile.

    A streamed MP3 goes out without LAME's first frame: it would hold the length, is written again
    at the end, and decoders that believe its first version stop too early. Ogg Opus goes out with
    one serial number, so that the same samples are the same bytes.
    """

    def __init__(self, name: Format, rate: int) -> None:
        self._streamed, self._skips = is_streamed(name), name == "mp3"
        self._is_ogg = name == "opus"
        self._block = max(1, rate // 2)  # libsndfile crashes on a minute of Ogg in one call
        self._sink = _Sink()
        self._file = soundfile.SoundFile(self._sink, "w", rate, 1, **KINDS[name])

    def add(self, wave_S: np.ndarray) -> bytes:
        for start in range(0, len(wave_S), self._block):
            self._file.write(wave_S[start : start + self._block].clip(-1, 1))
        return self._take() if self._streamed else b""

    def finish(self) -> bytes:
        self._file.close()
        return self._take()

    def _take(self) -> bytes:
        if self._is_ogg:
            return with_fixed_serial(self._sink.take())
        if not self._skips:
            return self._sink.take()
        first = self._sink.first(4)
        if len(first) < 4:
            return b""
        length = 72000 * MP3_KBITS[first[2] >> 4] // self._file.samplerate + (first[2] >> 1 & 1)
        if len(self._sink.first(length)) < length:
            return b""
        self._skips = False
        return self._sink.take()[length:]


class AacEncoder:
    """AAC in ADTS frames, by PyAV."""

    def __init__(self, rate: int) -> None:
        try:
            av: Any = importlib.import_module("av")
        except ImportError:
            raise MissingExtraError("av", "media", "The format aac") from None
        self._frame = av.AudioFrame
        self._sink, self._rate, self._samples = _Sink(), rate, 0
        self._container = av.open(self._sink, "w", format="adts")
        self._stream = self._container.add_stream("aac", rate=rate, layout="mono")
        self._stream.bit_rate = AAC_RATE

    def add(self, wave_S: np.ndarray) -> bytes:
        if len(wave_S):
            samples_1S = np.ascontiguousarray(wave_S[None], dtype=np.float32).clip(-1, 1)
            frame = self._frame.from_ndarray(samples_1S, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = self._rate, self._samples
            self._samples += len(wave_S)
            self._container.mux(self._stream.encode(frame))
        return self._sink.take()

    def finish(self) -> bytes:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._sink.take()


class _Sink:
    """A file in memory that gives away its beginning; what is written there again is dropped."""

    def __init__(self) -> None:
        self._base, self._slot, self._kept = 0, 0, bytearray()

    def take(self) -> bytes:
        taken = bytes(self._kept)
        self._base += len(taken)
        self._kept.clear()
        return taken

    def first(self, count: int) -> bytes:
        return bytes(self._kept[:count])

    def write(self, data: Any) -> int:
        content = bytes(data)
        at = self._slot - self._base
        self._slot += len(content)
        if at + len(content) > 0:
            begun = max(at, 0)
            self._kept[begun : begun + len(content) - (begun - at)] = content[begun - at :]
        return len(content)

    def read(self, size: int = -1) -> bytes:
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        end = self._base + len(self._kept)
        self._slot = offset + (0, self._slot, end)[whence]
        return self._slot

    def tell(self) -> int:
        return self._slot
