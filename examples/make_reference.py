"""Joins the spoken channel names of alsa-utils into one clip; README.md says why and how.

Usage: python make_reference.py /usr/share/sounds/alsa reference.flac
"""

import sys
from pathlib import Path

import numpy as np
import soundfile

RATE = 48000
NAMES = ["Front_Center", "Front_Left", "Rear_Right", "Side_Left"]
NAMES += ["Rear_Center", "Front_Right", "Rear_Left", "Side_Right"]
PAUSES = [0.30, 0.25, 0.35]  # seconds from the end of one name to the beginning of the next
AUDIBLE = 10 ** (-45 / 20)  # the first and the last sample above it bound a name
EDGE = round(0.04 * RATE)  # samples kept before and after, so that no sound is cut


def main(folder: Path, target: Path) -> None:
    """Write `target` (48 kHz, mono, 16 bits), with digital silence between the names."""
    parts = [np.zeros(round(0.1 * RATE), np.int16)]
    for number, name in enumerate(NAMES):
        samples_S, rate = soundfile.read(folder / f"{name}.wav", dtype="int16")
        if rate != RATE or samples_S.ndim != 1:
            raise SystemExit(f"{name}.wav is not the mono 48 kHz file that this script was for.")
        loud = np.flatnonzero(np.abs(samples_S.astype(np.int32)) > AUDIBLE * 32768)
        pause = round(PAUSES[number % len(PAUSES)] * RATE) - 2 * EDGE
        parts += [samples_S[max(loud[0] - EDGE, 0) : loud[-1] + EDGE], np.zeros(pause, np.int16)]
    soundfile.write(target, np.concatenate(parts), RATE, format="FLAC", subtype="PCM_16")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
