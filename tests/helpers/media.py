"""Sound files and videos that PyAV writes, and one that it only reads."""

import io
import struct

import av
import numpy as np

WMA_FRAME = 2048


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
            if codec.startswith("wma"):  # it has no bit rate of its own, and both ends get lost
                sound.bit_rate = 192000
                wave = np.pad(wave, WMA_FRAME)
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


def speex_in_ogg(seconds: float) -> bytes:
    """Random packets of 20 ms at 8 kHz and 8 kbit/s, as Speex in Ogg, which no encoder of PyAV
    makes."""
    rate, frame = 8000, 160
    header = struct.pack(
        "<8s20s13i", b"Speex   ", b"1.2", 1, 80, rate, 0, 4, 1, -1, frame, 0, 1, 0, 0, 0
    )
    draws = np.random.default_rng(0)
    packets = [header, struct.pack("<II", 0, 0)]  # the second has comments: none
    for _ in range(round(seconds * rate / frame)):
        noise = draws.integers(256, size=frame // 8, dtype=np.uint8).tobytes()
        packets.append(bytes([3 << 3 | noise[0] & 7]) + noise[1:])  # narrow band, mode 3
    last = len(packets) - 1
    pages = (
        _ogg_page(
            packet, number, max(number - 1, 0) * frame, 2 * (not number) | 4 * (number == last)
        )
        for number, packet in enumerate(packets)
    )
    return b"".join(pages)


def _ogg_page(packet: bytes, number: int, position: int, flags: int) -> bytes:
    """One packet of less than 255 bytes on a page of its own."""

    def page(checksum: int) -> bytes:
        head = struct.pack(
            "<4sBBqIIIBB", b"OggS", 0, flags, position, 1, number, checksum, 1, len(packet)
        )
        return head + packet

    checksum = 0
    for byte in page(0):
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum >> 31 else 0)) & 0xFFFFFFFF
    return page(checksum)
