"""The report of a reference: measurements, actions, warnings, hints."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from voxclone.audio.measure import MAX_SNR_DB
from voxclone.spec import SAMPLING_RATE

BEST_SECONDS = (10.0, 16.0)
TELEPHONE_RATE, TELEPHONE_HZ = 8000, 5000.0
CLIPPED_SHARE = 0.001
NOISY_DB = 15.0
QUIET_DBFS = -45.0
LITTLE_SPEECH = 0.4
STEADY_SHARE = 0.3
ONE_SPEAKER = 0.74  # similarity of windows; `cloning.speakers` has its error rates


@dataclass(frozen=True)
class ReferenceReport:
    """Measurements of a recording, and what was done to it.

    They are of the part that was kept, before its level was changed; `clipped_share` and `snr_db`
    are of the whole recording. For a reference joined from several recordings, they are means over
    its parts (for noise and bandwidth the worst part's), `parts` has the report of each, and
    `start` and `end` are positions in the reference.
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
    steady_share: float = 0.0  # of the kept part: loud, but as steady as noise, hum or a tone
    speaker_consistency: float | None = None  # cosine of its two most different groups of windows
    parts: tuple["ReferenceReport", ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All fields, with values that JSON knows."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return values | {"parts": [part.to_dict() for part in self.parts]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ReferenceReport":
        """The report that `to_dict` wrote. Raises ValueError for anything else."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        for name in ("actions", "warnings", "hints", "parts"):
            if not isinstance(known.setdefault(name, []), list):
                raise ValueError(f"{name} is no list")
            known[name] = tuple(known[name])
            if name != "parts" and not all(isinstance(text, str) for text in known[name]):
                raise ValueError(f"{name} are no sentences")
        known["parts"] = tuple(cls.from_dict(dict(part)) for part in known["parts"])
        try:
            report = cls(**known)
            report.sentences()
        except TypeError as error:
            raise ValueError(f"it is no report of a reference: {error}") from None
        return report

    def with_speaker_consistency(self, value: float | None) -> "ReferenceReport":
        """The report with the value, and a warning where it is too low for one speaker."""
        report = replace(self, speaker_consistency=value)
        if value is None or value >= ONE_SPEAKER:
            return report
        warning = (
            f"Several speakers? Its windows form two groups with a similarity of {value:.2f}; one "
            f"speaker's are above {ONE_SPEAKER:g}. A voice must be of one speaker."
        )
        return replace(report, warnings=(*self.warnings, warning))

    def sentences(self) -> list[str]:
        """For a terminal: a summary, what was done, what is wrong, what would help."""
        if self.parts:
            return self._joined_sentences()
        noise = f"noise {self.snr_db:.0f} dB below it"
        if self.snr_db >= MAX_SNR_DB:
            noise = "no noise in the pauses"
        summary = (
            f"{self.source}: {self.duration_out:.1f} s of {self.duration_in:.1f} s are used "
            f"({self.start:.2f} to {self.end:.2f} s), {self.speech_share:.0%} of it speech at "
            f"{self.level_before_dbfs:.1f} dBFS, {noise}, {self.clipped_share:.1%} clipped, "
            f"bandwidth {self.bandwidth_hz / 1000:.1f} kHz."
        )
        return [summary, *self.actions, *self._remarks()]

    def _joined_sentences(self) -> list[str]:
        parts = [sentence for part in self.parts for sentence in part.sentences()]
        summary = (
            f"Together: {self.duration_out:.1f} s of {self.duration_in:.1f} s in "
            f"{len(self.parts)} parts are used, {self.speech_share:.0%} of it speech."
        )
        return [*parts, summary, *self.actions, *self._remarks()]

    def _remarks(self) -> list[str]:
        warnings = [f"Warning: {text}" for text in self.warnings]
        return warnings + [f"Hint: {text}" for text in self.hints]


def quality_warnings(report: ReferenceReport, short_seconds: float) -> list[str]:
    """A sentence for each defect that the measurements show."""
    telephone = report.native_rate <= TELEPHONE_RATE or report.bandwidth_hz < TELEPHONE_HZ
    checks = [
        (
            report.duration_out < short_seconds,
            f"Short: {report.duration_out:.1f} s; a similar voice needs {short_seconds:g} s.",
        ),
        (
            report.steady_share > STEADY_SHARE,
            f"No speech? The level of {report.steady_share:.0%} of it hardly changes, as that of "
            "noise, hum or a tone: record somebody who speaks.",
        ),
        (
            report.speech_share < LITTLE_SPEECH and report.steady_share <= STEADY_SHARE,
            f"Mostly pauses: only {report.speech_share:.0%} of it is speech.",
        ),
        (
            telephone,
            f"Telephone quality: timbre above {report.bandwidth_hz / 1000:.1f} kHz is missing.",
        ),
        (
            report.clipped_share > CLIPPED_SHARE and report.level_before_dbfs >= QUIET_DBFS,
            f"Clipped: {report.clipped_share:.1%} of the samples are at the peak; record again at "
            "a lower level.",
        ),
        (
            report.snr_db < NOISY_DB,
            f"Noisy: speech is only {report.snr_db:.0f} dB above the background, and the voice "
            "will copy it.",
        ),
        (
            report.level_before_dbfs < QUIET_DBFS,
            f"Too quiet: speech is at {report.level_before_dbfs:.0f} dBFS, and raising it raises "
            "hiss; record again closer to the microphone.",
        ),
    ]
    return [sentence for found, sentence in checks if found]


def quality_hints(report: ReferenceReport) -> list[str]:
    """What would make a better reference, where this one has no defect."""
    hints = []
    if not BEST_SECONDS[0] <= report.duration_out <= BEST_SECONDS[1]:
        hints.append(
            "10 to 16 s of one speaker work best: dry, no music, natural pauses, a pause at the "
            "end."
        )
    if TELEPHONE_RATE < report.native_rate < SAMPLING_RATE:
        hints.append(
            f"It was recorded at {report.native_rate} Hz; {SAMPLING_RATE} Hz or more keeps all of "
            "the timbre."
        )
    return hints
