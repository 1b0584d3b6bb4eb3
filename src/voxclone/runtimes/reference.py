"""A recording as the `ref_audio` of vLLM-Omni: how many rows and places it would come to.

mistral-common counts ceil(seconds x frames a second) + 1 places in floating point, vLLM-Omni makes
ceil(samples / frame) + 1 rows; at 17 lengths up to 30 s these differ (checkpoint spec, 4.2, 5.2).
"""

import math
from pathlib import Path

from voxclone.errors import AudioError
from voxclone.release.release import Release
from voxclone.runtimes.reading import Reading


def count_places(samples: int, rate: int, frame_rate: float) -> int:
    """Places that mistral-common makes for a recording of `samples` at `rate`."""
    return math.ceil(samples / rate * frame_rate) + 1


def count_rows(samples: int, frame_size: int) -> int:
    """Rows that the codec and the END frame give."""
    return -(-samples // frame_size) + 1


def read_reference(path: Path, release: Release) -> Reading:
    """What vLLM-Omni would make of the recording `path`. Raises AudioError if it is no recording
    that soundfile reads, which mistral-common would refuse too."""
    import soundfile

    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise AudioError(f"{path} is no recording that can be read: {error}.") from None
    codec = release.params.codec
    samples = resampled_length(info.frames, info.samplerate, codec.sampling_rate)
    traps = []
    if info.channels != 1:
        traps.append(f"{path} has {info.channels} channels; one is accepted: mix it down.")
    if release.report.encoder == "withheld":
        traps.append(
            f"{release.path} has no codec encoder, so `ref_audio` is refused: inject one, or send "
            "a voice."
        )
    elif release.report.encoder == "partial":
        traps.append("Some tensors of the codec encoder are missing; they are random numbers then.")
    return Reading(
        path.stem,
        str(path),
        count_rows(samples, codec.frame_size),
        count_places(samples, codec.sampling_rate, release.params.audio.frame_rate),
        traps=tuple(traps),
    )


def resampled_length(samples: int, rate: int, wanted: int) -> int:
    """Samples after soxr has changed the rate."""
    import numpy as np
    import soxr

    if rate == wanted:
        return samples
    return len(soxr.resample(np.zeros(samples, np.float32), rate, wanted))
