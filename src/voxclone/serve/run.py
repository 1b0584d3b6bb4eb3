"""A server as a process: its socket, its log, its end."""

import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from voxclone.errors import UsageError
from voxclone.serve.protocol import Protocol
from voxclone.serve.settings import ServeSettings


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UsageError, before anything is loaded, where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # what follows repeats the address
        raise UsageError(
            f"Port {port} of {host} cannot be used: {reason}. Name another with --port."
        ) from None


def address(settings: ServeSettings, listening: socket.socket) -> str:
    """Where a browser finds the server."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listening.getsockname()[1]}"


def run(app: FastAPI, settings: ServeSettings, listening: socket.socket, *, quiet: bool) -> None:
    """Serve until a signal comes, then let running requests end. Raises what kept
    the model from being loaded."""
    _set_up_log(quiet)
    server = _Server(server_config(app, settings.limits.drain_seconds))
    worker = app.state.service.worker
    where = address(settings, listening)

    def loaded() -> None:
        if worker.failure is not None:
            server.should_exit = True
        elif not quiet:
            print(f"Ready      {where} (model {settings.model}, voices in {settings.voices})")
            sys.stdout.flush()

    worker.on_loaded = loaded
    server.run(sockets=[listening])
    if server.force_exit:  # uvicorn skips the end of the app, and a thread in PyTorch would abort
        worker.stop()
    if worker.failure is not None:
        raise worker.failure


def server_config(app: FastAPI, drain_seconds: float) -> uvicorn.Config:
    """How connections are served, and how long running requests may take when the server stops."""
    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=round(drain_seconds),
    )


class _Server(uvicorn.Server):
    """A server that ends well on SIGTERM and SIGINT, where uvicorn's would raise them again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _set_up_log(quiet: bool) -> None:
    """Sentences and access lines to standard error; errors alone where it is to be quiet."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name in ("voxclone.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.ERROR if quiet else logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    # The parser of forms logs what clients send; its errors are in their answers.
    forms = logging.getLogger("python_multipart")
    forms.handlers, forms.propagate = [logging.NullHandler()], False
