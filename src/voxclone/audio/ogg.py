"""Ogg streams that are the same for the same sound. libsndfile draws the serial number of each
stream at random. Source: RFC 3533, section 6.
"""

import zlib

SERIAL = slice(14, 18)
CHECKSUM = slice(22, 26)
HEADER_BYTES = 27  # the last of them counts the segments, whose sizes follow
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def with_fixed_serial(pages: bytes) -> bytes:
    """Whole pages of one stream, with the serial number 0. Raises ValueError for anything else."""
    fixed = bytearray()
    while len(fixed) < len(pages):
        at = len(fixed)
        body = at + HEADER_BYTES
        segments = pages[body - 1] if body <= len(pages) else 0
        length = HEADER_BYTES + segments + sum(pages[body : body + segments])
        page = bytearray(pages[at : at + length])
        if not page.startswith(b"OggS") or len(page) < length:
            raise ValueError(f"There is no whole Ogg page at byte {at}.")
        page[SERIAL] = page[CHECKSUM] = bytes(4)
        page[CHECKSUM] = _checksum(bytes(page))
        fixed += page
    return bytes(fixed)


def _checksum(page: bytes) -> bytes:
    """Ogg's CRC, as its bytes lie in a page: zlib's polynomial, from 0 and not inverted, with the
    bits of all bytes the other way round."""
    crc = zlib.crc32(page.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "big").translate(REVERSED)
