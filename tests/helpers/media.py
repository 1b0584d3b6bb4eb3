"""Sound files and videos that PyAV writes."""

import io

import av
import numpy as np


def encode_media(
    container: str,
    codec: str,
    wave: np.ndarray,
    rate: int = 24000,
    *,
    video: str | None = None,
    tracks: int = 1,
) -> bytes:
    """A file of FFmpeg's `container` with the sound [S] in `tracks` equal tracks; with `video`,
    that codec's black pictures come first."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as file:
        pictures = None
        if video is not None:
            pictures = file.add_stream(video, rate=10)
            pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sounds = [file.add_stream(codec, rate=rate) for _ in range(tracks)]
        for sound in sounds:
            sound.layout = "mono"
        if pictures is not None:
            for number in range(max(len(wave) * 10 // rate, 1)):
                frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")
                frame.pts = number
                file.mux(pictures.encode(frame))
            file.mux(pictures.encode(None))
        for sound in sounds:
            whole = av.AudioFrame.from_ndarray(
                np.round(wave[None] * 32767).astype(np.int16), "s16", "mono"
            )
            whole.sample_rate, whole.pts = rate, 0
            for frame in av.AudioResampler(sound.format, "mono", rate).resample(whole):
                file.mux(sound.encode(frame))
            file.mux(sound.encode(None))
    return stream.getvalue()
