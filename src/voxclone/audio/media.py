"""M4A, WebM, AAC, WMA, AMR and the sound of videos, decoded by PyAV (which ships FFmpeg).

FFmpeg gets an open file, the demuxer of its first bytes, and a list of audio decoders. A hostile
file can then neither open another file or address, nor reach the decoders of videos.

Shapes: S samples, C channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from voxclone.audio.decode import BLOCK_SAMPLES, to_float
from voxclone.audio.kinds import Kind
from voxclone.errors import AudioError

DECODERS = (
    "aac,aac_latm,alac,flac,mp1,mp1float,mp2,mp2float,mp3,mp3float,opus,vorbis,speex,ac3,eac3,"
    "amrnb,amrwb,wmav1,wmav2,wmapro,wmalossless,pcm_u8,pcm_s8,pcm_s16le,pcm_s16be,pcm_s24le,"
    "pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be,pcm_alaw,pcm_mulaw,"
    "adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,gsm,gsm_ms,qdm2,mace3,mace6"
)
"""FFmpeg's names of the decoders that may run."""
OPTIONS = {"codec_whitelist": DECODERS, "probesize": str(2**20)}


@dataclass(frozen=True)
class Track:
    """The rate (Hz) and channels of the track that is read, and sentences on how it was chosen."""

    rate: int
    channels: int
    notes: tuple[str, ...]


def read_track(stream: BinaryIO, kind: Kind, label: str) -> Track:
    """The first audio track, as its first frame is: the header of an AAC may give half the rate.

    Raises AudioError if PyAV is missing, if there is no audio track, or if it cannot be decoded.
    """
    with _opened(stream, kind, label) as container:
        tracks = container.streams.audio
        if not tracks:
            raise AudioError(f"{label} has no audio track.", "silent")
        video = any(not _is_cover(each) for each in container.streams.video)
        notes = []
        if video or len(tracks) > 1:
            what = f"the first of {len(tracks)} audio tracks" if len(tracks) > 1 else "the sound"
            notes.append(f"Used {what} of {'a video' if video else 'the file'}.")
        frame = next(_frames(container), None)
        if frame is None:
            raise AudioError(f"{label} holds no samples: it decodes to nothing.")
        return Track(frame.sample_rate, frame.layout.nb_channels, tuple(notes))


def track_blocks(stream: BinaryIO, kind: Kind, label: str, track: Track) -> Iterator[np.ndarray]:
    """The samples of the first audio track, float32 [S, C] in blocks. Raises AudioError."""
    with _opened(stream, kind, label) as container:
        parts, count = list[np.ndarray](), 0
        for frame in _frames(container):
            if (frame.sample_rate, frame.layout.nb_channels) != (track.rate, track.channels):
                raise AudioError(f"{label} changes its rate or its channels in the middle.")
            array = frame.to_ndarray()
            planar = frame.format.is_planar
            parts.append(to_float(array.T if planar else array.reshape(-1, track.channels)))
            count += array.size
            if count >= BLOCK_SAMPLES:
                yield np.concatenate(parts)
                parts, count = [], 0
        if parts:
            yield np.concatenate(parts)


@contextmanager
def _opened(stream: BinaryIO, kind: Kind, label: str) -> Iterator[Any]:
    """The container. An error of FFmpeg becomes an AudioError."""
    try:
        import av
    except ImportError:
        raise AudioError(
            f"{label} is {kind.name}, which the package 'av' reads: run `pip install "
            "'voxclone[media]'`, or convert it with `ffmpeg -i FILE out.wav`."
        ) from None
    stream.seek(0)
    try:
        with av.open(
            stream, format=kind.demuxer, options=OPTIONS, metadata_errors="replace"
        ) as container:
            yield container
    except AudioError:
        raise
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"{label} cannot be decoded as {kind.name}: {reason}.") from None


def _frames(container: Any) -> Iterator[Any]:
    """The frames of the first audio track."""
    track = container.streams.audio[0]
    if track.codec_context is None or track.codec_context.codec.name not in DECODERS.split(","):
        raise ValueError("no decoder for its sound is known")
    return container.decode(track)


def _is_cover(video: Any) -> bool:
    """Whether a video track is a picture beside the sound."""
    from av.stream import Disposition

    return bool(video.disposition & Disposition.attached_pic)
