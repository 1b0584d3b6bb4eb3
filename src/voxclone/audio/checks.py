"""Six checks of a recording, each with a finding and a suggestion."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from voxclone.audio.measure import MAX_SNR_DB
from voxclone.audio.report import (
    BEST_SECONDS,
    CLIPPED_SHARE,
    NOISY_DB,
    ONE_SPEAKER,
    QUIET_DBFS,
    TELEPHONE_HZ,
    TELEPHONE_RATE,
    ReferenceReport,
)
from voxclone.spec import SAMPLING_RATE

SHORT_SECONDS = 3.0
SOFT_DBFS = -35.0
CLEAN_DB = 25.0
DULL_HZ = 8000.0

Verdict = Literal["good", "fair", "bad"]
RANKS: tuple[Verdict, ...] = ("good", "fair", "bad")


@dataclass(frozen=True)
class Check:
    """`finding` is the measurement in words; `suggestion` is empty for a good clip."""

    name: str
    verdict: Verdict
    finding: str
    suggestion: str


def clip_checks(report: ReferenceReport) -> list[Check]:
    """Length, level, noise, clipping, bandwidth and number of speakers of a reference."""
    return [
        _length(report),
        _level(report),
        _noise(report),
        _clipping(report),
        _bandwidth(report),
        _speakers(report),
    ]


def worst(checks: Iterable[Check]) -> Verdict:
    """The verdict of the worst check."""
    return max((check.verdict for check in checks), key=RANKS.index)


def _length(report: ReferenceReport) -> Check:
    used, best = report.duration_out, f"{BEST_SECONDS[0]:g} to {BEST_SECONDS[1]:g}"
    finding = f"{used:.1f} s are used"
    if report.duration_in - used > 1:
        finding += f" of {report.duration_in:.1f} s"
    if used < SHORT_SECONDS:
        return Check("length", "bad", finding, f"Record more: {best} s of speech are best.")
    if used < BEST_SECONDS[0]:
        return Check("length", "fair", finding, f"This works; {best} s are better.")
    return Check("length", "good", finding, "")


def _level(report: ReferenceReport) -> Check:
    level = report.level_before_dbfs
    finding = f"speech at {level:.0f} dBFS"
    suggestion = "Speak closer to the microphone, or turn its level up."
    if level < QUIET_DBFS:
        return Check("level", "bad", finding, suggestion)
    if level < SOFT_DBFS:
        return Check("level", "fair", finding, f"Rather quiet. {suggestion}")
    return Check("level", "good", finding, "")


def _noise(report: ReferenceReport) -> Check:
    snr = report.snr_db
    finding = f"background {snr:.0f} dB below the speech"
    if snr >= MAX_SNR_DB:
        finding = "no background noise"
    suggestion = "Choose a quiet room without fan, music or echo: the voice copies the background."
    if snr < NOISY_DB:
        return Check("noise", "bad", finding, suggestion)
    if snr < CLEAN_DB:
        return Check("noise", "fair", finding, suggestion)
    return Check("noise", "good", finding, "")


def _clipping(report: ReferenceReport) -> Check:
    share = report.clipped_share
    if share > CLIPPED_SHARE:
        suggestion = "Record again at a lower level or farther from the microphone."
        return Check("clipping", "bad", f"{share:.1%} of the samples are cut off", suggestion)
    return Check("clipping", "good", "nothing is cut off", "")


def _bandwidth(report: ReferenceReport) -> Check:
    top, rate = report.bandwidth_hz, report.native_rate
    finding = f"sound up to {top / 1000:.1f} kHz"
    suggestion = "Use the original recording or another microphone, no telephone or headset call."
    if rate <= TELEPHONE_RATE or top < TELEPHONE_HZ:
        return Check("bandwidth", "bad", finding, f"Telephone quality. {suggestion}")
    if rate < SAMPLING_RATE or top < DULL_HZ:
        return Check("bandwidth", "fair", finding, f"The highs are missing. {suggestion}")
    return Check("bandwidth", "good", finding, "")


def _speakers(report: ReferenceReport) -> Check:
    if report.speaker_consistency is None:
        finding = "too little speech to decide"
        return Check("speakers", "fair", finding, "From about 5 s on, other voices are noticed.")
    if report.speaker_consistency < ONE_SPEAKER:
        suggestion = "A voice must be of one person: cut out the others."
        return Check("speakers", "bad", "there may be several people", suggestion)
    return Check("speakers", "good", "one person", "")
