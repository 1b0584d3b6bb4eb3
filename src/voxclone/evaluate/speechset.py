"""Speech to evaluate on: clips of several speakers, read once and held in memory.

Shapes: S samples.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from voxclone.audio.files import SOUND_SUFFIXES, read_wave
from voxclone.data.manifest import Clip, read_manifest
from voxclone.errors import AudioError, ConfigError
from voxclone.spec import SAMPLING_RATE

LEAST_SECONDS = 1.0


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

    @property
    def digest(self) -> str:
        """SHA-256 of the samples: the name under which what is derived from them may be kept."""
        return hashlib.sha256(self.wave_S.numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class SpeechSet:
    """Utterances, and the clips that could not be read with the reason of each."""

    utterances: list[Utterance]
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in self.utterances)

    def by_speaker(self) -> dict[str, list[Utterance]]:
        """Utterances of each speaker, speakers in order of their names."""
        found: dict[str, list[Utterance]] = {}
        for each in self.utterances:
            found.setdefault(each.speaker, []).append(each)
        return dict(sorted(found.items()))


def list_clips(source: str | Path) -> list[Clip]:
    """Clips of a manifest (JSON lines), or of a folder whose sub-folders are speakers (sound files
    beside no sub-folder are each a speaker of their own). Raises ConfigError if there are none."""
    path = Path(source)
    if not path.is_dir():
        return read_manifest(path)
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SOUND_SUFFIXES)
    if not found:
        raise ConfigError(f"The folder {path} holds no sound file ({' '.join(SOUND_SUFFIXES)}).")
    clips = []
    for file in found:
        inner = file.relative_to(path)
        speaker = inner.parts[0] if len(inner.parts) > 1 else inner.stem
        text = file.with_suffix(".txt")
        said = text.read_text(encoding="utf-8").strip() if text.is_file() else None
        clips.append(Clip(str(inner), file, speaker, 0.0, text=said or None))
    return clips


def choose(clips: Sequence[Clip], seconds: float) -> list[Clip]:
    """Clips of about `seconds` in all (their durations as listed), one of each speaker in turn, so
    that every speaker is in it as evenly as there is speech."""
    queues: dict[str, list[Clip]] = {}
    for clip in clips:
        queues.setdefault(clip.speaker, []).append(clip)
    chosen: list[Clip] = []
    total = 0.0
    while queues and total < seconds:
        for speaker in sorted(queues):
            clip = queues[speaker].pop(0)
            if not queues[speaker]:
                del queues[speaker]
            chosen.append(clip)
            total += max(clip.duration, LEAST_SECONDS)
            if total >= seconds:
                break
    return chosen


def load_speech(
    clips: Sequence[Clip], track: Callable[[Iterable[Clip]], Iterable[Clip]] = iter
) -> SpeechSet:
    """Read clips. Those that cannot be decoded or are shorter than a second are left out and told
    in `unreadable`. Raises ConfigError if none remains."""
    kept: list[Utterance] = []
    unreadable: dict[str, str] = {}
    for clip in track(clips):
        try:
            wave_S = torch.from_numpy(read_wave(clip.path))
        except AudioError as error:
            unreadable[clip.id] = str(error)
            continue
        if len(wave_S) < LEAST_SECONDS * SAMPLING_RATE:
            unreadable[clip.id] = f"shorter than {LEAST_SECONDS:g} s"
            continue
        kept.append(Utterance(clip, wave_S))
    if not kept:
        first = next(iter(unreadable.items()), ("none", "no clip was given"))
        raise ConfigError(f"No clip can be used; the first is {first[0]}: {first[1]}")
    return SpeechSet(kept, unreadable)
