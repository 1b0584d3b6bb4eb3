"""An app on a real socket, in a thread of the test's own process."""

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI

from tests.serve.conftest import until
from voxclone.serve.run import open_socket, server_config


@dataclass
class Address:
    """Where a server listens, in this process or another."""

    port: int

    def send(self, method: str, path: str, body: Any = None) -> http.client.HTTPConnection:
        """A connection on which a request was sent, and nothing read yet."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        return connection

    def send_form(
        self, path: str, field: str, content: bytes, fields: Mapping[str, str]
    ) -> http.client.HTTPConnection:
        """A connection on which a form with a file was sent, and nothing read yet."""
        body = b"".join(
            f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
        )
        head = f'--x\r\nContent-Disposition: form-data; name="{field}"; filename="a.wav"\r\n\r\n'
        body += head.encode() + content + b"\r\n--x--\r\n"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        connection.request("POST", path, body, headers)
        return connection

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer."""
        connection = self.send(method, path, body)
        with contextlib.closing(connection):
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


@dataclass
class Live(Address):
    """A server that runs in this process."""

    app: FastAPI
    server: uvicorn.Server

    @property
    def worker(self) -> Any:
        return self.app.state.service.worker


@contextlib.contextmanager
def live(app: FastAPI) -> Iterator[Live]:
    """Run an app until the block ends."""
    listening = open_socket("127.0.0.1", 0)
    server = uvicorn.Server(server_config(app, 5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        worker = app.state.service.worker
        until(lambda: worker.ready or worker.failure)
        yield Live(listening.getsockname()[1], app, server)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
