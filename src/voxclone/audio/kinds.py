"""The kinds of sound files, by their first bytes, and what reads each.

The name of a file says nothing: phones and browsers write one kind under the name of another.
"""

import re
from dataclasses import dataclass

HEAD_BYTES = 64

SOUND_SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aiff", ".aif", ".aifc", ".au",
    ".snd", ".caf", ".w64", ".rf64", ".m4a", ".m4b", ".mp4", ".mov", ".3gp", ".webm", ".mkv",
    ".mka", ".aac", ".wma", ".wmv", ".amr", ".avi",
)  # fmt: skip
"""Names that sound files have in folders."""

WRITABLE = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "OPUS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
"""Suffixes of the files that are written: container and encoding in libsndfile's words."""


@dataclass(frozen=True)
class Kind:
    """A kind of file. `demuxer` is FFmpeg's name for it; None if libsndfile reads it."""

    name: str
    head: bytes  # a regular expression for the first bytes
    demuxer: str | None = None


KINDS = (
    Kind("WAV", rb"(RIFF|RIFX|RF64)....WAVE"),
    Kind("W64", rb"riff\x2e\x91\xcf\x11"),
    Kind("AIFF", rb"FORM....AIF[FC]"),
    Kind("FLAC", rb"fLaC"),
    Kind("Ogg", rb"OggS.{24}(\x01vorbis|OpusHead)"),
    # Eleven set bits, a version that is not reserved, the layer: 01 is III, 10 is II, 00 is AAC.
    Kind("MP3", rb"ID3|\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd][^\xf0-\xff]"),
    Kind("AU", rb"\.snd|dns\."),
    Kind("CAF", rb"caff.{24}([la]pcm|[ua]law)"),
    Kind("CAF", rb"caff", "caf"),
    Kind("Ogg", rb"OggS", "ogg"),  # FLAC, Speex, and videos
    Kind("MP4 (M4A, MOV)", rb"....(ftyp|moov|mdat|wide|free|skip)", "mov"),
    Kind("WebM (Matroska)", rb"\x1aE\xdf\xa3", "matroska"),
    Kind("AAC", rb"\xff[\xf0\xf1\xf8\xf9]", "aac"),
    Kind("WMA (WMV)", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    Kind("AMR", rb"#!AMR", "amr"),
    Kind("AVI", rb"RIFF....AVI ", "avi"),
)


def kind_of(head: bytes) -> Kind | None:
    """The kind of a file that begins with `head` (`HEAD_BYTES` of it, if it is that long)."""
    return next((kind for kind in KINDS if re.match(kind.head, head, re.DOTALL)), None)
