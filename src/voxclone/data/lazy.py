"""Speech that `voxclone data prepare` made, read where it lies: a crop is decoded when it is drawn.

Opening reads the manifest once and no sound at all, so that a million clips open in seconds and
take some tens of megabytes.

Shapes: S samples, N clips.
"""

from pathlib import Path

import numpy as np
import soundfile

from voxclone.data.corpus import Corpus
from voxclone.data.manifest import Manifest
from voxclone.errors import AudioError, ConfigError
from voxclone.spec import SAMPLING_RATE

AGAIN = "delete it and prepare the corpus again, which makes it anew."


class LazyCorpus(Corpus):
    """The clips of a prepared manifest."""

    def __init__(self, manifest: Manifest) -> None:
        """Raises ConfigError for a manifest that `data prepare` did not make."""
        if not manifest.prepared:
            raise ConfigError(
                f"{manifest.path} does not say how many samples its clips have: make it with "
                "`voxclone data prepare`."
            )
        self.clips = manifest
        self.manifest = manifest
        self.lengths_N = manifest.samples_N
        self.speaker_N = manifest.speaker_N
        self.id_N = manifest.id_N

    def read(self, index: int, start: int, count: int) -> np.ndarray:
        """Raises AudioError for a file that is missing or not what the manifest says."""
        path = self.clips[index].path
        try:
            with soundfile.SoundFile(str(path)) as file:
                found = (file.samplerate, file.channels, file.frames)
                if found != (SAMPLING_RATE, 1, self.length(index)):
                    raise AudioError(_other(path, found, self.length(index)))
                file.seek(start)
                wave_S: np.ndarray = file.read(count, "float32")
        except soundfile.SoundFileError as error:
            if not path.exists():
                raise AudioError(
                    f"The file {path} has gone since the training began: bring it back, or prepare "
                    "the corpus again.",
                    "missing",
                ) from None
            reason = str(getattr(error, "error_string", error)).rstrip(".")
            raise AudioError(f"{path} cannot be read: {reason}; {AGAIN}") from None
        if len(wave_S) < count:
            raise AudioError(f"{path} is cut short; {AGAIN}")
        return wave_S


def whole(lazy: LazyCorpus, chosen_N: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Those [M] of the clips `chosen_N` whose files are there, and for the others a sentence each;
    see `Manifest.absent` for what that takes."""
    absent_N = lazy.manifest.absent(chosen_N)
    reasons = [f"There is no file {lazy.clips[number].path}." for number in absent_N.tolist()]
    return chosen_N[~np.isin(chosen_N, absent_N)], reasons


def _other(path: Path, found: tuple[int, int, int], samples: int) -> str:
    rate, channels, frames = found
    return (
        f"{path} has {frames} samples at {rate} Hz in {channels} channels, and the manifest says "
        f"{samples} at {SAMPLING_RATE} in one; {AGAIN}"
    )
