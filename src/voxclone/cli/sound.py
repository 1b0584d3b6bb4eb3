"""The sound that `clone` and `speak` make: a file, or standard output."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from voxclone.cli.common import open_console
from voxclone.errors import UsageError
from voxclone.outputs import SOUND, STANDARD_OUTPUT, check_output, refuse_inputs

if TYPE_CHECKING:
    from rich.console import Console

    from voxclone.tts.speech import Speech


def is_standard_output(out: Path) -> bool:
    """Whether the sound goes to standard output."""
    return str(out) == STANDARD_OUTPUT


def check_sound(out: Path, inputs: Iterable[Path | str | None]) -> None:
    """Raise UsageError for a sound file that cannot be written, for a terminal, and for an output
    that is one of the inputs."""
    if not is_standard_output(out):
        check_output(out, SOUND, inputs)
    elif sys.stdout is None or sys.stdout.isatty():
        raise UsageError(
            "-o - writes a WAV to standard output, which is a terminal: redirect it, or name a "
            "file."
        )
    else:
        refuse_inputs(out, inputs)


def sound_console(out: Path, quiet: bool) -> "Console":
    """A console for messages, which must not mix with sound on standard output."""
    return open_console(quiet, stderr=is_standard_output(out))


def write_sound(speech: "Speech", out: Path) -> int:
    """Write the speech; gives the number of samples that were clipped. Raises AudioError, and
    UsageError if nothing reads standard output any more."""
    if not is_standard_output(out):
        return speech.save(out)
    from voxclone.audio.writing import encode_wave

    data, clipped = encode_wave(speech.wave_S.numpy(), speech.sampling_rate)
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except BrokenPipeError:
        raise UsageError("Nothing reads the standard output any more.") from None
    return clipped
