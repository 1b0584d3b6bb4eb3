"""A recording as the `ref_audio` of vLLM-Omni: its frames, and the positions in the prompt.

mistral-common makes ceil(seconds x frames a second) + 1 positions in floating point, vLLM-Omni
ceil(samples / frame) + 1 frames; at 17 lengths up to 30 s these differ (checkpoint spec, 4.2, 5.2).
"""

import math
import os
from pathlib import Path

from voxclone.errors import AudioError
from voxclone.release.release import Release
from voxclone.runtimes.reading import Reading


def count_positions(samples: int, rate: int, frame_rate: float) -> int:
    """Positions that mistral-common makes for a recording of `samples` at `rate`."""
    return math.ceil(samples / rate * frame_rate) + 1


def count_frames(samples: int, frame_size: int) -> int:
    """Frames of the codec and the END frame."""
    return -(-samples // frame_size) + 1


def read_reference(path: Path, release: Release) -> Reading:
    """The recording `path` as vLLM-Omni reads it. Raises AudioError if soundfile cannot read it;
    mistral-common would refuse it, too."""
    import soundfile

    try:
        info = soundfile.info(os.fsencode(path))
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise AudioError(f"{path} is no recording that can be read: {error}.") from None
    codec = release.params.codec
    samples = resampled_length(info.frames, info.samplerate, codec.sampling_rate)
    problems = []
    if info.channels != 1:
        problems.append(f"{path} has {info.channels} channels; one is accepted: mix it down.")
    if release.report.encoder == "withheld":
        problems.append(
            f"{release.path} has no codec encoder, so `ref_audio` is refused: inject one, or send "
            "a voice."
        )
    elif release.report.encoder == "partial":
        problems.append(
            "Some tensors of the codec encoder are missing: they will be random numbers."
        )
    return Reading(
        path.stem,
        str(path),
        count_frames(samples, codec.frame_size),
        count_positions(samples, codec.sampling_rate, release.params.audio.frame_rate),
        problems=tuple(problems),
    )


def resampled_length(samples: int, rate: int, wanted: int) -> int:
    """Samples after soxr has changed the rate."""
    import numpy as np
    import soxr

    if rate == wanted:
        return samples
    return len(soxr.resample(np.zeros(samples, np.float32), rate, wanted))
