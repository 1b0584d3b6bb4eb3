"""The voices in a folder or file, read as a runtime reads them.

Shapes: N frames, D width.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from voxclone.errors import UnknownVoiceError, UsageError, shorten
from voxclone.release.release import Release
from voxclone.runtimes.reading import Reading, check_reading
from voxclone.runtimes.reference import read_reference
from voxclone.runtimes.table import Runtime
from voxclone.spec import VOICES
from voxclone.voice.embedding import end_frame
from voxclone.voice.resolve import ResolvedVoice


@dataclass(frozen=True)
class RuntimeInput:
    """The input of a runtime, and the release whose model speaks; `path` itself if it is one."""

    runtime: Runtime
    path: Path
    release: Release
    end_D: Tensor

    @classmethod
    def of(cls, runtime: Runtime, path: Path, release: Release) -> "RuntimeInput":
        """The input `path`; `release` is used if that is no release itself."""
        if runtime.input == "release" and os.path.isdir(path):
            release = Release.open(path)
        return cls(runtime, path, release, end_frame(release))


def read_voice(given: RuntimeInput, name: str, like: ResolvedVoice | None = None) -> Reading:
    """The voice `name` as a runtime reads it. With `like`, another embedding is a problem."""
    runtime = given.runtime
    reading = runtime.read(given.path, name, given.release)
    reading = check_reading(reading, given.end_D, runtime.context, runtime.mismatch)
    if like is None or reading.embedding_ND is None:
        return reading
    if torch.equal(reading.embedding_ND.to(torch.bfloat16), like.embedding_ND):
        return reading
    problem = f"Its embedding is not that of the voice {like.name!r}."
    return replace(reading, problems=(*reading.problems, problem))


def verify(
    runtime: Runtime,
    path: Path,
    release: Release,
    *,
    name: str | None = None,
    like: ResolvedVoice | None = None,
) -> list[Reading]:
    """Every voice in `path`, or `name` alone, as `runtime` reads it.

    `path` is a release folder, a folder of voices, or a file; for vLLM-Omni it may be a recording,
    too, to be sent as `ref_audio`. Raises UsageError for anything else, and for a folder without
    voices.
    """
    if runtime.name == "vllm-omni" and os.path.isfile(path):
        mismatch = f"{runtime.mismatch}: drop or add one sample"
        reading = read_reference(path, release)
        return [check_reading(reading, end_frame(release), runtime.context, mismatch)]
    if runtime.input == "file":
        if not os.path.isfile(path):
            raise UsageError(f"{runtime.name} reads a file, and {path} is none: name the file.")
        given = RuntimeInput.of(runtime, path, release)
        return [read_voice(given, path.name.partition(".")[0], like)]
    if not os.path.isdir(path):
        kind = "release folder" if runtime.input == "release" else "folder of voices"
        raise UsageError(f"{runtime.name} reads a {kind}, and {path} is none: name the folder.")
    given = RuntimeInput.of(runtime, path, release)
    known = voice_names(given)
    if not known:
        raise UsageError(f"There is no voice for {runtime.name} in {path}: export one to it.")
    if name is not None and name not in known:
        raise UnknownVoiceError(
            f"There is no voice {shorten(name)!r} in {path}: they are {shorten(', '.join(known))}."
        )
    names = [name] if name is not None else known
    return [read_voice(given, each, like) for each in names]


def voice_names(given: RuntimeInput) -> list[str]:
    """Names of all voices in an input: of its files, the map of params.json or the counts."""
    runtime, path, release = given.runtime, given.path, given.release
    if runtime.input == "voices":
        return sorted(each.stem for each in path.glob(f"*{runtime.suffix}"))
    found = {each.stem for suffix in (".pt", ".safetensors") for each in
             (path / VOICES).glob(f"*{suffix}")}  # fmt: skip
    return sorted(found | set(release.params.voices) | set(release.voice_counts))


def sentences(reading: Reading) -> list[str]:
    """A reading for a terminal: what is loaded, then every problem and note."""
    if reading.frames is None:
        first = f"nothing is read from {reading.source}."
    else:
        made = reading.positions
        positions = "" if made is None else f", {made} positions in the prompt"
        first = f"{reading.frames} frames from {reading.source}{positions}."
    return [first, *(f"! {problem}" for problem in reading.problems), *reading.notes]
