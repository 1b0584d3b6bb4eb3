"""Speech to evaluate on: clips of several speakers, held in memory.

Shapes: S samples.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from voxclone.audio.files import read_wave
from voxclone.audio.kinds import SOUND_SUFFIXES
from voxclone.data.manifest import Clip, read_manifest
from voxclone.errors import AudioError, ConfigError, UsageError, file_name
from voxclone.evaluate.progress import Track, untracked
from voxclone.readers import read_text
from voxclone.spec import SAMPLING_RATE

MIN_SECONDS = 1.0


@dataclass(frozen=True, eq=False)
class Utterance:
    """One clip and its samples [S] at 24 kHz."""

    clip: Clip
    wave_S: Tensor

    @property
    def speaker(self) -> str:
        return self.clip.speaker

    @property
    def seconds(self) -> float:
        return len(self.wave_S) / SAMPLING_RATE


@dataclass(frozen=True)
class SpeechSet:
    """Utterances, and the reason of each clip that could not be read."""

    utterances: list[Utterance]
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in self.utterances)

    def by_speaker(self) -> dict[str, list[Utterance]]:
        """Utterances of each speaker, sorted by speaker."""
        found: dict[str, list[Utterance]] = {}
        for each in self.utterances:
            found.setdefault(each.speaker, []).append(each)
        return dict(sorted(found.items()))


def list_clips(source: str | Path) -> list[Clip]:
    """Clips of a manifest (JSON lines), or of a folder with a sub-folder for each speaker; a sound
    file in no sub-folder is a speaker of its own. Raises ConfigError if there are none."""
    path = Path(source)
    if not os.path.isdir(path):
        return read_manifest(path)
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SOUND_SUFFIXES)
    if not found:
        raise ConfigError(f"The folder {path} holds no sound file ({' '.join(SOUND_SUFFIXES)}).")
    clips = []
    for file in found:
        inner = file.relative_to(path)
        speaker = file_name(inner.parts[0] if len(inner.parts) > 1 else inner.stem)
        text = file.with_suffix(".txt")
        content = read_text(text, what="The transcript").strip() if os.path.isfile(text) else ""
        clips.append(Clip(file_name(inner), file, speaker, 0.0, text=content or None))
    return clips


def select_clips(clips: Sequence[Clip], seconds: float) -> list[Clip]:
    """Clips of about `seconds` in all, by their listed durations, one of each speaker in turn."""
    queues: dict[str, list[Clip]] = {}
    for clip in clips:
        queues.setdefault(clip.speaker, []).append(clip)
    selected: list[Clip] = []
    total = 0.0
    while queues and total < seconds:
        for speaker in sorted(queues):
            clip = queues[speaker].pop(0)
            if not queues[speaker]:
                del queues[speaker]
            selected.append(clip)
            total += max(clip.duration, MIN_SECONDS)
            if total >= seconds:
                break
    return selected


def open_speech(
    source: Path, split: str | None, seconds: float, track: Track = untracked
) -> SpeechSet:
    """About `seconds` of speech of a manifest or folder, speakers in turn. Raises UsageError for an
    empty split."""
    clips = [clip for clip in list_clips(source) if split in (None, clip.split)]
    if not clips:
        raise UsageError(f"{source} has no clip of the split {split!r}.")
    return load_speech(select_clips(clips, seconds), track)


def load_speech(clips: Sequence[Clip], track: Track = untracked) -> SpeechSet:
    """Read clips. Those that cannot be decoded or are shorter than a second are left out and listed
    as `unreadable`. Raises ConfigError if none remains."""
    kept: list[Utterance] = []
    unreadable: dict[str, str] = {}
    for clip in track(clips, "reading"):
        try:
            wave_S = torch.from_numpy(read_wave(clip.path))
        except AudioError as error:
            unreadable[clip.id] = str(error)
            continue
        if len(wave_S) < MIN_SECONDS * SAMPLING_RATE:
            unreadable[clip.id] = f"shorter than {MIN_SECONDS:g} s"
            continue
        kept.append(Utterance(clip, wave_S))
    if not kept:
        first = next(iter(unreadable.items()), ("none", "no clip was given"))
        raise ConfigError(f"No clip can be used; the first is {first[0]}: {first[1]}")
    return SpeechSet(kept, unreadable)
