"""Options of enrollment. They are part of its identity, so nothing heavy is imported here."""

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from voxclone.config import Settings
from voxclone.errors import AudioError, UsageError, printable
from voxclone.voice.metadata import Consent

if TYPE_CHECKING:
    from voxclone.audio.files import Recording

MAX_RECORDINGS = 32
MAX_CANDIDATES = 16

# Steps that change recordings, and the setting of a reference behind each. None: the step is here,
# or in reading the recording.
STEPS = {
    "offset": "remove_offset",
    "high-pass": "high_pass",
    "trim": "trim",
    "crop": "crop",
    "pause": "end_on_pause",
    "level": "level",
    "miscount": "avoid_miscount",
    "join": None,
    "resample": None,
    "mix": None,
}
CONSENTS = ("self", "written", "public-domain", "synthetic")


class EnrollOptions(Settings):
    """How recordings become a reference. The defaults run no network but the encoder."""

    without: tuple[str, ...] = ()
    """Steps that are left out, see STEPS."""
    seconds: float | None = Field(default=None, ge=2, le=120)
    """Most seconds of the reference; None: 30 of one recording, 16 of several or chosen crops."""
    level_dbfs: float = Field(default=-20.0, ge=-60, le=0)
    high_pass_hz: float = Field(default=40.0, gt=0, le=50)
    best_of: int = Field(default=1, ge=1, le=MAX_CANDIDATES)
    """Crops of each recording to choose from."""
    select_by: Literal["similarity", "gain"] = "similarity"
    """Speaker similarity of decoded codes to the other crops, or conditioning gain on them."""


def check_steps(names: list[str]) -> tuple[str, ...]:
    """The names, sorted. Raises UsageError, with the nearest step, for an unknown one."""
    for name in names:
        if name not in STEPS:
            near = get_close_matches(name, STEPS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"--without {name!r}: {hint}Steps are {', '.join(STEPS)}.")
    return tuple(sorted(set(names)))


def check_consent(
    kind: str | None, statement: str | None, fields: tuple[str, str] = ("--consent", "--statement")
) -> Consent:
    """The consent that a user states in two fields, named in messages. Raises UsageError if a part
    of it is missing; nothing is assumed."""
    if kind is None or kind not in CONSENTS:
        found = "" if kind is None else f", not {kind!r}"
        raise UsageError(
            f"A voice is stored with its owner's consent only: {fields[0]} takes "
            f"{', '.join(CONSENTS)}{found}."
        )
    words: str = printable(" ".join((statement or "").split()))
    if not words:
        raise UsageError(
            f"Say who allows what in {fields[1]}, such as 'I am Anna and this is my voice.'; the "
            "voice file stores it."
        )
    if len(words) > 2000:
        raise UsageError(f"{fields[1]} has {len(words)} characters; 2000 can be stored.")
    return Consent(kind=kind, statement=words)  # type: ignore[arg-type]


def read_for(path: Path, options: EnrollOptions) -> "Recording":
    """Read a recording. Raises AudioError if it cannot be used, or would have to be resampled or
    mixed against the options."""
    from voxclone.audio.files import read_recording
    from voxclone.spec import SAMPLING_RATE

    recording = read_recording(path)
    if "resample" in options.without and recording.native_rate != SAMPLING_RATE:
        raise AudioError(
            f"{path} has a rate of {recording.native_rate} Hz, and codes are made of "
            f"{SAMPLING_RATE} Hz: resample it yourself, or leave out `--without resample`."
        )
    if "mix" in options.without and recording.channels != 1:
        raise AudioError(
            f"{path} has {recording.channels} channels, and codes are made of one: keep one of "
            "them, or leave out `--without mix`."
        )
    return recording
