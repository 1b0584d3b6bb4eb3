"""A recording judged as a person would want it: six checks, each with a figure and what to do."""

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
    """`figure` is what was measured, in words; `advice` is empty where nothing need be done."""

    name: str
    verdict: Verdict
    figure: str
    advice: str


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
    figure = f"{used:.1f} s are used"
    if report.duration_in - used > 1:
        figure += f" of {report.duration_in:.1f} s"
    if used < SHORT_SECONDS:
        return Check("length", "bad", figure, f"Record more: {best} s of speech are best.")
    if used < BEST_SECONDS[0]:
        return Check("length", "fair", figure, f"This works; {best} s are better.")
    return Check("length", "good", figure, "")


def _level(report: ReferenceReport) -> Check:
    level = report.level_before_dbfs
    figure = f"speech at {level:.0f} dBFS"
    advice = "Speak closer to the microphone, or turn its level up."
    if level < QUIET_DBFS:
        return Check("level", "bad", figure, advice)
    if level < SOFT_DBFS:
        return Check("level", "fair", figure, f"Rather quiet. {advice}")
    return Check("level", "good", figure, "")


def _noise(report: ReferenceReport) -> Check:
    snr = report.snr_db
    figure = f"background {snr:.0f} dB below the speech"
    if snr >= MAX_SNR_DB:
        figure = "no background noise"
    advice = "Choose a quiet room without fan, music or echo: the voice copies the background."
    if snr < NOISY_DB:
        return Check("noise", "bad", figure, advice)
    if snr < CLEAN_DB:
        return Check("noise", "fair", figure, advice)
    return Check("noise", "good", figure, "")


def _clipping(report: ReferenceReport) -> Check:
    share = report.clipped_share
    if share > CLIPPED_SHARE:
        advice = "Record again at a lower level or farther from the microphone."
        return Check("clipping", "bad", f"{share:.1%} of the samples are cut off", advice)
    return Check("clipping", "good", "nothing is cut off", "")


def _bandwidth(report: ReferenceReport) -> Check:
    top, rate = report.bandwidth_hz, report.native_rate
    figure = f"sound up to {top / 1000:.1f} kHz"
    advice = "Use the original recording or another microphone, no telephone or headset call."
    if rate <= TELEPHONE_RATE or top < TELEPHONE_HZ:
        return Check("bandwidth", "bad", figure, f"Telephone quality. {advice}")
    if rate < SAMPLING_RATE or top < DULL_HZ:
        return Check("bandwidth", "fair", figure, f"The highs are missing. {advice}")
    return Check("bandwidth", "good", figure, "")


def _speakers(report: ReferenceReport) -> Check:
    if report.speaker_consistency is None:
        figure = "too little speech to tell"
        return Check("speakers", "fair", figure, "From about 5 s on, other voices are noticed.")
    if report.speaker_consistency < ONE_SPEAKER:
        advice = "A voice must be of one person: cut out the others."
        return Check("speakers", "bad", "there may be several people", advice)
    return Check("speakers", "good", "one person", "")
