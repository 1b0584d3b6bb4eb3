"""The one thread that has the model, and the bounded queue in front of it.

Texts are spoken in batches: who comes joins between two frames. Everything else that needs the
model, and whatever writes voices, is a task that runs between two frames, one at a time; so changes
of voices have an order. What nobody waits for any more is given up at the next frame.

A text with a seed is spoken in a batch of its own, frame by frame in turn with the others: larger
batches round differently, and its speech is to be the same whoever else is there.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from voxclone.serve.errors import ApiError, busy, log
from voxclone.serve.outlet import GoneError, Outlet
from voxclone.serve.settings import Limits
from voxclone.tts.streams import Piece, Utterance

ValueT = TypeVar("ValueT")
SLEEP = 0.05  # seconds between looks at readers that have not kept up


class Batch(Protocol):
    """Where utterances are spoken together (`tts.streams.Streams`)."""

    @property
    def busy(self) -> int: ...

    def add(self, utterance: Utterance) -> None: ...
    def drop(self, utterances: list[Utterance]) -> None: ...
    def step(self, held: list[Utterance]) -> list[Piece]: ...


@dataclass(frozen=True)
class Progress:
    """A stage of a task that begins."""

    stage: str


@dataclass(frozen=True)
class Result:
    """What a task has come to."""

    value: Any


@dataclass(eq=False)
class _Task:
    outlet: Outlet
    function: Callable[[Any, Callable[[str], None]], Any]


@dataclass(eq=False)
class _Speech:
    outlet: Outlet
    make: Callable[[Any], Utterance]
    alone: bool
    utterance: Utterance | None = None


@dataclass(eq=False)
class _Group:
    """Texts that are spoken in one batch."""

    batch: Batch
    alone: bool
    speeches: list[_Speech] = field(default_factory=list)
    idle: bool = False
    """Whether all of them wait for their readers."""


class Place:
    """A request's place in the queue, which it keeps until it has its answer."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._outlets: list[Outlet] = []
        self._begun = time.monotonic()
        self._held = True

    def speak(self, make: Callable[[Any], Utterance], *, alone: bool) -> Outlet:
        """Have an utterance spoken; its pieces come out of the outlet. `make` is called with the
        model, in its thread."""
        outlet = self._outlet()
        self._worker.submit(_Speech(outlet, make, alone))
        return outlet

    def begin(self, function: Callable[[Any, Callable[[str], None]], Any]) -> Outlet:
        """Have a function called with the model, and with a function to tell its stages to. Out of
        the outlet come `Progress` and at last a `Result`."""
        outlet = self._outlet()
        self._worker.submit(_Task(outlet, function))
        return outlet

    async def run(self, function: Callable[[Any], ValueT]) -> ValueT:
        """What a function makes of the model. Raises what it raises."""
        outlet = self.begin(lambda model, tell: function(model))
        result: ValueT = (await outlet.get()).value
        return result

    def leave(self) -> None:
        """The request has its answer, or its client has gone."""
        for outlet in self._outlets:
            outlet.close()
        if self._held:
            self._held = False
            self._worker.left(time.monotonic() - self._begun)

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()

    def _outlet(self) -> Outlet:
        self._outlets.append(Outlet())
        return self._outlets[-1]


class Worker:
    """Loads the model in a thread of its own and works there. All but `_run` and what it calls is
    for the event loop."""

    def __init__(self, load: Callable[[], Any], limits: Limits) -> None:
        self._load, self._limits = load, limits
        self._lock = threading.Condition()
        self._tasks: deque[_Task] = deque()
        self._speeches: deque[_Speech] = deque()
        self._groups: list[_Group] = []
        self._closing = False
        self._places = 0
        self._seconds = 1.0  # that a request takes, smoothed
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.model: Any = None
        self.failure: Exception | None = None
        self.on_loaded: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Give up all that runs and waits, and end the thread."""
        with self._lock:
            self._closing = True
            self._lock.notify()
        self._thread.join()

    @property
    def ready(self) -> bool:
        return self.model is not None and not self._closing

    @property
    def waiting(self) -> int:
        """Requests that have a place."""
        return self._places

    @property
    def speaking(self) -> int:
        """Texts that are being spoken."""
        return sum(len(group.speeches) for group in self._groups)

    def require_ready(self) -> None:
        """Raise ApiError where the model is not there."""
        if self.failure is not None:
            raise ApiError(503, "The model could not be loaded: see the log.", code="load_failed")
        if not self.ready:
            raise busy(503, "The model is being loaded: try again soon.", "loading", 2)

    def reserve(self) -> Place:
        """A place in the queue. Raises ApiError where the model is not there or the queue is full,
        with the seconds after which to try again."""
        self.require_ready()
        if self._places >= self._limits.queue + self._limits.together:
            seconds = math.ceil(self._seconds * self._places / self._limits.together)
            raise busy(
                429,
                f"{self._places} requests are being worked on, and no more can wait: try again.",
                "queue_full",
                min(max(seconds, 1), 60),
            )
        self._places += 1
        return Place(self)

    def left(self, seconds: float) -> None:
        self._places -= 1
        self._seconds += 0.2 * (seconds - self._seconds)

    def submit(self, job: _Task | _Speech) -> None:
        with self._lock:
            if isinstance(job, _Task):
                self._tasks.append(job)
            else:
                self._speeches.append(job)
            self._lock.notify()

    def _run(self) -> None:
        try:
            self.model = self._load()
        except Exception as error:
            self.failure = error
            self.on_loaded()
            return
        self.on_loaded()
        while self._take():
            for group in list(self._groups):
                self._step(group)
            self._groups = [group for group in self._groups if group.speeches]
        for group in self._groups:
            self._fail(group.speeches, ApiError(503, "The server stops.", code="stopping"))
        self._groups = []

    def _take(self) -> bool:
        """Begin what waits, a task at a time; False when the worker is to end. Waits where there is
        nothing to do."""
        with self._lock:
            while not (self._tasks or self._speeches or self._groups or self._closing):
                self._lock.wait()
            nothing_new = not (self._tasks or self._speeches or self._closing)
            if nothing_new and all(group.idle for group in self._groups):
                self._lock.wait(SLEEP)
            if self._closing:
                waiting = [*self._tasks, *self._speeches]
                self._tasks.clear()
                self._speeches.clear()
                self._fail(waiting, ApiError(503, "The server stops.", code="stopping"))
                return False
            task = self._tasks.popleft() if self._tasks else None
            room = max(0, self._limits.together - self.speaking)
            begun = [self._speeches.popleft() for _ in range(min(room, len(self._speeches)))]
        if task is not None:
            self._do(task)
        for speech in begun:
            self._begin(speech)
        return True

    def _do(self, task: _Task) -> None:
        def tell(stage: str) -> None:
            task.outlet.check()
            task.outlet.put(Progress(stage))

        with suppress(GoneError):
            task.outlet.check()
            try:
                task.outlet.put(Result(task.function(self.model, tell)))
            except GoneError:
                raise
            except Exception as error:
                task.outlet.put(error)

    def _begin(self, speech: _Speech) -> None:
        if speech.outlet.closed:
            return
        try:
            speech.utterance = speech.make(self.model)
            shared = [group for group in self._groups if not group.alone]
            if speech.alone or not shared:
                self._groups.append(_Group(self.model.batch(), speech.alone))
            group = self._groups[-1] if speech.alone or not shared else shared[0]
            group.batch.add(speech.utterance)
            group.speeches.append(speech)
            group.idle = False
        except Exception as error:
            speech.outlet.put(error)

    def _step(self, group: _Group) -> None:
        """A frame of each text of a group; those that nobody hears any more leave before."""
        limits = self._limits
        gone = [each for each in group.speeches if self._is_gone(each)]
        held = [
            each.utterance
            for each in group.speeches
            if each.utterance is not None and each.outlet.unread > limits.ahead_seconds
        ]
        try:
            if gone:
                group.batch.drop([each.utterance for each in gone if each.utterance is not None])
                group.speeches = [each for each in group.speeches if each not in gone]
            pieces = group.batch.step(held)
            group.idle = not group.batch.busy and len(held) == len(group.speeches)
        except Exception as error:  # it concerns the whole batch
            log.error("a batch of %d texts failed", len(group.speeches), exc_info=error)
            self._fail(group.speeches, error)
            group.speeches = []
            return
        for piece in pieces:
            speech = next(each for each in group.speeches if each.utterance is piece.utterance)
            speech.outlet.put(piece, len(piece.wave_S) / self.model.sampling_rate)
            if piece.ended:
                group.speeches.remove(speech)

    def _is_gone(self, speech: _Speech) -> bool:
        if speech.outlet.stalled() > self._limits.stalled_seconds:
            speech.outlet.put(ApiError(408, "Nobody took the speech.", code="stalled"))
            return True
        return speech.outlet.closed

    def _fail(self, jobs: list[Any], error: Exception) -> None:
        for job in jobs:
            job.outlet.put(error)
