"""What a runtime would make of the voices that it is given.

Shapes: N rows, D width.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from voxclone.errors import UsageError
from voxclone.release.release import Release
from voxclone.runtimes.reading import Reading, end_row, judge
from voxclone.runtimes.reference import read_reference
from voxclone.runtimes.table import Runtime
from voxclone.spec import VOICES
from voxclone.voice.resolve import Chosen


@dataclass(frozen=True)
class Place:
    """What a runtime is given, and the release whose model speaks: the same if `path` is one."""

    runtime: Runtime
    path: Path
    release: Release
    end_D: Tensor

    @classmethod
    def of(cls, runtime: Runtime, path: Path, release: Release) -> "Place":
        """The place `path`; `release` is used where that is no release itself."""
        if runtime.place == "release" and path.is_dir():
            release = Release.open(path)
        return cls(runtime, path, release, end_row(release))


def read_voice(place: Place, name: str, like: Chosen | None = None) -> Reading:
    """What a runtime would make of a voice. With `like`, other rows than its are a trap."""
    runtime = place.runtime
    reading = runtime.read(place.path, name, place.release)
    reading = judge(reading, place.end_D, runtime.context, runtime.mismatch)
    if like is None or reading.rows_ND is None:
        return reading
    if torch.equal(reading.rows_ND.to(torch.bfloat16), like.rows_ND):
        return reading
    trap = f"Its rows are not those of the voice {like.name!r}."
    return replace(reading, traps=(*reading.traps, trap))


def verify(
    runtime: Runtime,
    path: Path,
    release: Release,
    *,
    name: str | None = None,
    like: Chosen | None = None,
) -> list[Reading]:
    """What `runtime` would make of every voice in `path`, or of `name` alone.

    `path` is what the runtime is given: a release folder, a folder of voices, or a file; for
    vLLM-Omni it may be a recording too, to be sent as `ref_audio`. Raises UsageError for anything
    else, and for a folder without voices.
    """
    if runtime.name == "vllm-omni" and path.is_file():
        mend = "the request fails, or the rows are merged wrongly: drop or add one sample"
        reading = read_reference(path, release)
        return [judge(reading, end_row(release), runtime.context, mend)]
    if runtime.place == "file":
        if not path.is_file():
            raise UsageError(f"{runtime.name} reads a file, and {path} is none: name the file.")
        place = Place.of(runtime, path, release)
        return [read_voice(place, path.name.partition(".")[0], like)]
    if not path.is_dir():
        kind = "release folder" if runtime.place == "release" else "folder of voices"
        raise UsageError(f"{runtime.name} reads a {kind}, and {path} is none: name the folder.")
    place = Place.of(runtime, path, release)
    names = [name] if name is not None else voice_names(place)
    if not names:
        raise UsageError(f"There is no voice for {runtime.name} in {path}: export one to it.")
    return [read_voice(place, each, like) for each in names]


def voice_names(place: Place) -> list[str]:
    """Names of all voices that are hinted at in a place: by a file, the map or the counts."""
    runtime, path, release = place.runtime, place.path, place.release
    if runtime.place == "voices":
        return sorted(each.stem for each in path.glob(f"*{runtime.suffix}"))
    found = {each.stem for suffix in (".pt", ".safetensors") for each in
             (path / VOICES).glob(f"*{suffix}")}  # fmt: skip
    return sorted(found | set(release.params.voices) | set(release.voice_counts))


def sentences(reading: Reading) -> list[str]:
    """A reading in words: what is loaded, then every trap and note."""
    if reading.rows is None:
        first = f"nothing is read from {reading.source}."
    else:
        places = "" if reading.places is None else f", {reading.places} places in the prompt"
        first = f"{reading.rows} rows from {reading.source}{places}."
    return [first, *(f"! {trap}" for trap in reading.traps), *reading.notes]
