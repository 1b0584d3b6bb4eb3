"""The report of a reference: figures, what was done, what is wrong with it, what would help."""

from dataclasses import asdict, dataclass
from typing import Any

from voxclone.audio.measure import MAX_SNR_DB

BEST_SECONDS = (10.0, 16.0)
BEST_RATE = 24000
TELEPHONE_RATE, TELEPHONE_HZ = 8000, 5000.0
CLIPPED_SHARE = 0.001
NOISY_DB = 15.0
QUIET_DBFS = -45.0
LITTLE_SPEECH = 0.4


@dataclass(frozen=True)
class ReferenceReport:
    """What a recording is like and what was done to it.

    The figures are of the part that was kept, before its level was changed; `clipped_share` and
    `snr_db` are of the whole recording.
    """

    source: str
    native_rate: int  # Hz
    channels: int
    duration_in: float  # seconds
    duration_out: float
    start: float  # of the kept part, in seconds of the recording
    end: float
    speech_share: float
    level_before_dbfs: float  # of active speech
    gain_db: float
    clipped_share: float  # of the samples
    snr_db: float  # an estimate; 100: the pauses are digital silence
    bandwidth_hz: float
    actions: tuple[str, ...]  # sentences, in the order in which things were done
    warnings: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All fields, with values that JSON knows."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def sentences(self) -> list[str]:
        """For a terminal: a summary, what was done, what is wrong, what would help."""
        noise = f"noise {self.snr_db:.0f} dB below it"
        if self.snr_db >= MAX_SNR_DB:
            noise = "no noise in the pauses"
        summary = (
            f"{self.source}: {self.duration_out:.1f} s of {self.duration_in:.1f} s are used "
            f"({self.start:.2f} to {self.end:.2f} s), {self.speech_share:.0%} of it speech at "
            f"{self.level_before_dbfs:.1f} dBFS, {noise}, bandwidth "
            f"{self.bandwidth_hz / 1000:.1f} kHz."
        )
        warnings = [f"Warning: {text}" for text in self.warnings]
        hints = [f"Hint: {text}" for text in self.hints]
        return [summary, *self.actions, *warnings, *hints]


def quality_warnings(report: ReferenceReport, short_seconds: float) -> list[str]:
    """A sentence for each defect that the figures of the report show."""
    telephone = report.native_rate <= TELEPHONE_RATE or report.bandwidth_hz < TELEPHONE_HZ
    checks = [
        (
            report.duration_out < short_seconds,
            f"Short: {report.duration_out:.1f} s, and a likeness needs {short_seconds:g} s.",
        ),
        (
            report.speech_share < LITTLE_SPEECH,
            f"Mostly pauses: only {report.speech_share:.0%} of it is speech.",
        ),
        (
            telephone,
            f"Telephone quality: timbre above {report.bandwidth_hz / 1000:.1f} kHz is missing.",
        ),
        (
            report.clipped_share > CLIPPED_SHARE,
            f"Clipped: {report.clipped_share:.1%} of the samples are cut off at the peak; record "
            "again at a lower level.",
        ),
        (
            report.snr_db < NOISY_DB,
            f"Noisy: speech is only {report.snr_db:.0f} dB above the background, which the voice "
            "will copy.",
        ),
        (
            report.level_before_dbfs < QUIET_DBFS,
            f"Too quiet: speech is at {report.level_before_dbfs:.0f} dBFS, and raising it raises "
            "hiss; record again closer to the microphone.",
        ),
    ]
    return [sentence for found, sentence in checks if found]


def quality_hints(report: ReferenceReport) -> list[str]:
    """What would make a better reference, where this one is not faulty but not the best."""
    hints = []
    if not BEST_SECONDS[0] <= report.duration_out <= BEST_SECONDS[1]:
        hints.append(
            "10 to 16 s of one speaker work best: dry, no music, natural pauses, a pause at the "
            "end."
        )
    if TELEPHONE_RATE < report.native_rate < BEST_RATE:
        hints.append(
            f"It was recorded at {report.native_rate} Hz; {BEST_RATE} Hz or more keeps all of the "
            "timbre."
        )
    return hints
