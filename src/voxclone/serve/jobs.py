"""Jobs of the worker thread, and what their results are."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from voxclone.serve.results import JobResults
from voxclone.tts.streams import SpeechChunk, Utterance


class Batch(Protocol):
    """A batch of utterances: `tts.streams.Streams`."""

    @property
    def busy(self) -> int: ...

    def add(self, utterance: Utterance) -> None: ...
    def drop(self, utterances: list[Utterance]) -> None: ...
    def step(self, held: list[Utterance]) -> list[SpeechChunk]: ...


@dataclass(frozen=True)
class Progress:
    """A stage of a task begins."""

    stage: str


@dataclass(frozen=True)
class Result:
    """The return value of a task."""

    value: Any


@dataclass(eq=False)
class Task:
    """A function to call with the model and a callback for its stages."""

    results: JobResults
    function: Callable[[Any, Callable[[str], None]], Any]


@dataclass(eq=False)
class Speech:
    """A text to speak: `make` gives its utterance, in the worker thread; `alone` gives it a batch
    of its own."""

    results: JobResults
    make: Callable[[Any], Utterance]
    alone: bool
    utterance: Utterance | None = None


@dataclass(eq=False)
class Group:
    """The texts of one batch; `idle` if all of them wait for their clients to read."""

    batch: Batch
    alone: bool
    speeches: list[Speech] = field(default_factory=list)
    idle: bool = False
