"""The worker thread, which owns the model, and its bounded queue.

Texts are generated with continuous batching: a new text joins the batch between two frames. Every
other use of the model, and every write to the stored voices, is a task. Tasks run one at a time
between two frames, so changes of voices have an order. A job of a client that has gone is cancelled
at the next frame.

A text with a seed has a batch of its own, and the batches take turns. Larger batches round
differently, and the speech of a seed must not depend on other requests.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from voxclone.serve.errors import ApiError, busy, log, stopping
from voxclone.serve.jobs import Group, Progress, Result, Speech, Task
from voxclone.serve.results import ClientGoneError, JobResults
from voxclone.serve.settings import Limits
from voxclone.tts.streams import Utterance

ValueT = TypeVar("ValueT")
SLEEP = 0.05  # seconds between two looks at clients that do not read


class Slot:
    """A request's slot of the queue, held until its response is complete."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._results: list[JobResults] = []
        self._begun = time.monotonic()
        self._held = True

    def speak(self, make: Callable[[Any], Utterance], *, alone: bool) -> JobResults:
        """Generate an utterance; the results are its chunks. `make` is called with the model, in
        the worker thread; `alone` gives it a batch of its own."""
        results = self._new_results()
        self._worker.submit(Speech(results, make, alone))
        return results

    def begin(self, function: Callable[[Any, Callable[[str], None]], Any]) -> JobResults:
        """Call a function with the model and a callback for its stages. The results are `Progress`
        for each stage and a `Result` at the end."""
        results = self._new_results()
        self._worker.submit(Task(results, function))
        return results

    async def run(self, function: Callable[[Any], ValueT]) -> ValueT:
        """The return value of a function of the model. Raises its exception."""
        results = self.begin(lambda model, progress: function(model))
        result: ValueT = (await results.get()).value
        return result

    def leave(self) -> None:
        """Free the slot and cancel its jobs: the response is complete, or the client has gone."""
        for results in self._results:
            results.close()
        if self._held:
            self._held = False
            self._worker.left(time.monotonic() - self._begun)

    def __enter__(self) -> "Slot":
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()

    def _new_results(self) -> JobResults:
        self._results.append(JobResults())
        return self._results[-1]


class Worker:
    """Loads the model in a thread and runs jobs there. `_run` and what it calls belong to that
    thread, everything else to the event loop."""

    def __init__(self, load: Callable[[], Any], limits: Limits) -> None:
        self._load, self._limits = load, limits
        self._lock = threading.Condition()
        self._tasks: deque[Task] = deque()
        self._speeches: deque[Speech] = deque()
        self._groups: list[Group] = []
        self._closing = False
        self._slots = 0
        self._seconds = 1.0  # that a request takes, smoothed
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.model: Any = None
        self.failure: Exception | None = None
        self.on_loaded: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Cancel all jobs and end the thread."""
        with self._lock:
            self._closing = True
            self._lock.notify()
        self._thread.join()

    @property
    def ready(self) -> bool:
        return self.model is not None and not self._closing

    @property
    def waiting(self) -> int:
        """Requests that hold a slot."""
        return self._slots

    @property
    def speaking(self) -> int:
        """Texts in all batches."""
        return sum(len(group.speeches) for group in self._groups)

    def require_ready(self) -> None:
        """Raise ApiError (503) unless the model is loaded."""
        if self.failure is not None:
            raise ApiError(503, "The model could not be loaded: see the log.", code="load_failed")
        if not self.ready:
            raise busy(503, "The model is being loaded: try again soon.", "loading", 2)

    def reserve(self) -> Slot:
        """A slot of the queue. Raises ApiError, with the seconds after which to retry, if the model
        is not loaded (503) or the queue is full (429)."""
        self.require_ready()
        if self._slots >= self._limits.queue + self._limits.together:
            seconds = math.ceil(self._seconds * self._slots / self._limits.together)
            raise busy(
                429,
                f"The queue is full with {self._slots} requests: try again later.",
                "queue_full",
                min(max(seconds, 1), 60),
            )
        self._slots += 1
        return Slot(self)

    def left(self, seconds: float) -> None:
        self._slots -= 1
        self._seconds += 0.2 * (seconds - self._seconds)

    def submit(self, job: Task | Speech) -> None:
        with self._lock:
            if isinstance(job, Task):
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
            self._fail(group.speeches, stopping())
        self._groups = []

    def _take(self) -> bool:
        """Run the next task and start the texts that wait; False if the worker must end. Blocks
        while there is nothing to do."""
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
                self._fail(waiting, stopping())
                return False
            task = self._tasks.popleft() if self._tasks else None
            room = max(0, self._limits.together - self.speaking)
            begun = [self._speeches.popleft() for _ in range(min(room, len(self._speeches)))]
        if task is not None:
            self._do(task)
        for speech in begun:
            self._begin(speech)
        return True

    def _do(self, task: Task) -> None:
        def progress(stage: str) -> None:
            task.results.check()
            task.results.put(Progress(stage))

        with suppress(ClientGoneError):
            task.results.check()
            try:
                task.results.put(Result(task.function(self.model, progress)))
            except ClientGoneError:
                raise
            except Exception as error:
                task.results.put(error)

    def _begin(self, speech: Speech) -> None:
        if speech.results.closed:
            return
        try:
            speech.utterance = speech.make(self.model)
            shared = [group for group in self._groups if not group.alone]
            if speech.alone or not shared:
                self._groups.append(Group(self.model.batch(), speech.alone))
            group = self._groups[-1] if speech.alone or not shared else shared[0]
            group.batch.add(speech.utterance)
            group.speeches.append(speech)
            group.idle = False
        except Exception as error:
            speech.results.put(error)

    def _step(self, group: Group) -> None:
        """Generate a frame of each text of a group, after dropping those whose client has gone."""
        limits = self._limits
        gone = [each for each in group.speeches if self._is_gone(each)]
        held = [
            each.utterance
            for each in group.speeches
            if each.utterance is not None and each.results.unread > limits.ahead_seconds
        ]
        try:
            if gone:
                group.batch.drop([each.utterance for each in gone if each.utterance is not None])
                group.speeches = [each for each in group.speeches if each not in gone]
            chunks = group.batch.step(held)
            group.idle = not group.batch.busy and len(held) == len(group.speeches)
        except Exception as error:  # the whole batch is lost
            log.error("a batch of %d texts failed", len(group.speeches), exc_info=error)
            self._fail(group.speeches, error)
            group.speeches = []
            return
        for chunk in chunks:
            speech = next(each for each in group.speeches if each.utterance is chunk.utterance)
            speech.results.put(chunk, len(chunk.wave_S) / self.model.sampling_rate)
            if chunk.ended:
                group.speeches.remove(speech)

    def _is_gone(self, speech: Speech) -> bool:
        if speech.results.stalled() > self._limits.stalled_seconds:
            speech.results.put(ApiError(408, "The client did not read the speech.", code="stalled"))
            return True
        return speech.results.closed

    def _fail(self, jobs: list[Any], error: Exception) -> None:
        for job in jobs:
            job.results.put(error)
