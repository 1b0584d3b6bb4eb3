"""Prepared speech by formula: enough of it to pass the gate, in seconds of work."""

import json
from pathlib import Path

import numpy as np
import soundfile

from tests.helpers.signals import RATE, speech

PHRASES, PAUSES = (2.0, 1.6, 2.4, 1.5), (0.1, 0.25, 0.3, 0.2, 0.1)

CLIPS = {"ada": 14, "ben": 14, "cid": 14, "dot": 1, "eve": 1}
TESTED = {"dot": "test", "eve": "test"}


def wave_of(speaker: int, clip: int, turns: int = 2) -> np.ndarray:
    """Samples [S] of a clip, 8 s a turn; no two are alike."""
    wave_S = np.tile(speech(PHRASES, PAUSES), turns) * (0.5 + 0.05 * speaker)
    noise_S = np.random.default_rng(100 * speaker + clip).standard_normal(len(wave_S))
    return np.asarray(wave_S + 1e-4 * noise_S)


def write_prepared(folder: Path, clips: dict[str, int], splits: dict[str, str]) -> Path:
    """So many clips by each speaker, as `data prepare` lists them; returns the manifest."""
    folder.mkdir(parents=True)
    rows = []
    for number, (name, count) in enumerate(clips.items()):
        for clip in range(count):
            wave_S, path = wave_of(number, clip), f"{name}-{clip}.wav"
            soundfile.write(folder / path, wave_S, RATE, subtype="PCM_16")
            rows.append(
                {
                    "id": path, "path": path, "speaker": name, "duration": len(wave_S) / RATE,
                    "samples": len(wave_S), "text": "we go home", "language": "en",
                    "split": splits.get(name, "train"),
                }
            )  # fmt: skip
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_recordings(folder: Path, clips: dict[str, int]) -> Path:
    """A folder of recordings with transcripts, a folder for each speaker."""
    for number, (name, count) in enumerate(clips.items()):
        (folder / name).mkdir(parents=True)
        for clip in range(count):
            path = folder / name / f"{clip}.wav"
            soundfile.write(path, wave_of(number, clip), RATE, subtype="PCM_16")
            path.with_suffix(".txt").write_text("we go home", encoding="utf-8")
    return folder
