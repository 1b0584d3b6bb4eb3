"""Audio out: WAV, FLAC, Ogg Opus and MP3.

Shapes: S samples.
"""

import io
import os
from pathlib import Path

import numpy as np
import soundfile

from voxclone.audio.containers import reason_of
from voxclone.audio.kinds import WRITABLE
from voxclone.audio.ogg import with_fixed_serial
from voxclone.errors import AudioError
from voxclone.io import atomic_path
from voxclone.spec import SAMPLING_RATE


def write_wave(path: str | Path, wave_S: np.ndarray, rate: int = SAMPLING_RATE) -> int:
    """Write samples [S] as WAV, FLAC, Ogg Opus or MP3, by the suffix; a file there is replaced.

    Samples beyond +-1 are clipped; their number is returned. The file is written atomically. Raises
    AudioError for an unknown suffix, samples that are missing or not finite, a rate that the format
    cannot hold, and a folder that cannot be written.
    """
    path = Path(path)
    wave_S = np.asarray(wave_S)
    suffix = path.suffix.lower()
    if suffix not in WRITABLE:
        problem = f"its name must end in one of {', '.join(WRITABLE)}"
    elif wave_S.ndim != 1 or not len(wave_S) or wave_S.dtype.kind != "f":
        problem = f"the samples are {wave_S.dtype} of the shape {list(wave_S.shape)}"
    elif not np.isfinite(wave_S).all():
        problem = "some samples are NaN or infinite"
    elif not path.parent.is_dir():
        problem = f"there is no folder {path.parent}"
    elif not os.access(path.parent, os.W_OK):
        problem = f"the folder {path.parent} may not be written to"
    else:
        try:
            with atomic_path(path) as temporary:
                _write_blocks(temporary, wave_S, rate, *WRITABLE[suffix])
            return int((np.abs(wave_S) > 1).sum())
        except (soundfile.SoundFileError, OSError) as error:
            problem = reason_of(error).replace("System error", "perhaps the disk is full")
    raise AudioError(f"{path} cannot be written: {problem}.")


def encode_wave(wave_S: np.ndarray, rate: int = SAMPLING_RATE) -> tuple[bytes, int]:
    """Samples [S] as the bytes of a WAV, and how many lay beyond +-1 and are clipped."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, 1, format="WAV", subtype="PCM_16") as file:
        file.write(to_int16(wave_S.clip(-1, 1)))
    return buffer.getvalue(), int((np.abs(wave_S) > 1).sum())


def to_int16(part_S: np.ndarray) -> np.ndarray:
    """By 32768, as readers divide: what is read is written again."""
    return np.round(part_S * 32768.0).clip(-32768, 32767).astype(np.int16)


def _write_blocks(path: Path, wave_S: np.ndarray, rate: int, container: str, encoding: str) -> None:
    block = max(rate // 2, 1)  # libsndfile's Vorbis writer crashes on a minute in one call
    with soundfile.SoundFile(
        os.fsencode(path), "w", rate, 1, format=container, subtype=encoding
    ) as file:
        for start in range(0, len(wave_S), block):
            part_S = wave_S[start : start + block].clip(-1, 1)
            if encoding == "PCM_16":
                part_S = to_int16(part_S)
            file.write(part_S)
    if soundfile.info(os.fsencode(path)).frames < len(wave_S):
        raise OSError("the file is shorter than it should be, perhaps because the disk is full")
    if container == "OGG":
        path.write_bytes(with_fixed_serial(path.read_bytes()))
