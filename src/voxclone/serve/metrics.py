"""Metrics for Prometheus, in a registry of the app's own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

from voxclone.serve.worker import Worker

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """What is counted; labels are routes and status codes, never anything that a client sent."""

    def __init__(self, worker: Worker) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "voxclone_requests", "Answers by route and status.", ["route", "status"],
            registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "voxclone_request_seconds", "From request to the last byte.", ["route"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.first_sound = Histogram(
            "voxclone_first_sound_seconds", "From request to the first samples.",
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.speech = Counter(
            "voxclone_speech_seconds", "Seconds of speech that were made.", registry=registry
        )
        self.abandoned = Counter(
            "voxclone_abandoned", "Requests whose client went away.", registry=registry
        )
        for name, text, function in (
            ("voxclone_ready", "Whether the model is loaded.", lambda: float(worker.ready)),
            ("voxclone_slots", "Requests that wait or are worked on.", lambda: worker.waiting),
            ("voxclone_speaking", "Texts that are being spoken.", lambda: worker.speaking),
        ):
            Gauge(name, text, registry=registry).set_function(function)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
