"""An app on a real socket, in a thread of the test's own process."""

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI

from tests.serve.conftest import until
from voxclone.serve.run import open_socket


@dataclass
class Live:
    """A server that runs."""

    app: FastAPI
    port: int
    server: uvicorn.Server

    @property
    def worker(self) -> Any:
        return self.app.state.service.worker

    def send(self, method: str, path: str, body: Any = None) -> http.client.HTTPConnection:
        """A connection on which a request was sent, and nothing read yet."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        return connection

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer."""
        connection = self.send(method, path, body)
        with contextlib.closing(connection):
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


@contextlib.contextmanager
def live(app: FastAPI) -> Iterator[Live]:
    """Run an app until the block ends."""
    listening = open_socket("127.0.0.1", 0)
    config = uvicorn.Config(
        app, http="h11", ws="none", lifespan="on", log_config=None, access_log=False,
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        worker = app.state.service.worker
        until(lambda: worker.ready or worker.failure)
        yield Live(app, listening.getsockname()[1], server)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
