"""Speech that `voxclone data prepare` made, read from its files: a crop is decoded when it is
drawn.

Opening reads the manifest once and no sound, so that a million clips open in seconds and take some
tens of megabytes.

Shapes: S samples, N and M clips.
"""

import os

import numpy as np
import soundfile

from voxclone.data.corpus import Corpus
from voxclone.data.manifest import Manifest
from voxclone.errors import AudioError, ConfigError
from voxclone.spec import SAMPLING_RATE

MEND = "delete it and prepare the corpus again, which makes it anew."


class PreparedCorpus(Corpus):
    """The clips of a prepared manifest."""

    def __init__(self, manifest: Manifest) -> None:
        """Raises ConfigError for a manifest that `data prepare` did not make."""
        if not manifest.prepared:
            raise ConfigError(
                f"{manifest.path} does not say how many samples its clips have: make it with "
                "`voxclone data prepare`."
            )
        self.clips = self.manifest = manifest
        self.lengths_N = manifest.samples_N
        self.speaker_N = manifest.speaker_N
        self.id_N = manifest.id_N

    def read(self, index: int, start: int, count: int) -> np.ndarray:
        """Raises AudioError for a file that is missing or differs from the manifest."""
        path, samples = self.clips[index].path, self.length(index)
        try:
            with soundfile.SoundFile(os.fsencode(path)) as file:
                rate, channels, frames = file.samplerate, file.channels, file.frames
                if (rate, channels, frames) != (SAMPLING_RATE, 1, samples):
                    raise AudioError(
                        f"{path} has {frames} samples at {rate} Hz in {channels} channels, and the "
                        f"manifest says {samples} at {SAMPLING_RATE} in one; {MEND}"
                    )
                file.seek(start)
                wave_S: np.ndarray = file.read(count, "float32")
        except soundfile.SoundFileError as error:
            if not path.exists():
                raise AudioError(
                    f"The file {path} has gone since the training began: restore it, or prepare "
                    "the corpus again.",
                    "missing",
                ) from None
            reason = str(getattr(error, "error_string", error)).rstrip(".")
            raise AudioError(f"{path} cannot be read: {reason}; {MEND}") from None
        if len(wave_S) < count:
            raise AudioError(f"{path} is cut short; {MEND}")
        return wave_S

    def present(self, indices_N: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """The indices [M] of clips whose files are there, and a sentence for each of the others;
        `Manifest.missing` says how long that takes."""
        missing_N = self.manifest.missing(indices_N)
        reasons = [f"There is no file {self.clips[index].path}." for index in missing_N.tolist()]
        return indices_N[~np.isin(indices_N, missing_N)], reasons
