"""HTTP as uvicorn reads it. What it cannot read is refused by the app, as all else is."""

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from voxclone.serve.errors import ApiError

UNREADABLE = "unreadable"
"""The key of the state of a request that says that some part of it is no HTTP."""
STAND_IN = b"- * HTTP/1.1\r\nHost: -\r\nConnection: close\r\n\r\n"


class Protocol(H11Protocol):
    """A connection whose app answers every error: uvicorn's own answer is plain text."""

    def send_400_response(self, msg: str) -> None:
        """Let the app refuse what was sent. `msg` is uvicorn's sentence."""
        if self.conn.our_state is h11.IDLE:  # no request was read: another one takes its place
            self.conn = h11.Connection(h11.SERVER)
            self.conn.receive_data(STAND_IN)
            self.handle_events()
        if self.cycle.response_complete:
            self.transport.close()
            return
        self.cycle.scope["state"][UNREADABLE] = True  # the app looks before its answer
        self.cycle.keep_alive = False
        self.cycle.message_event.set()


def check_readable(scope: Scope) -> None:
    """Raise ApiError for a request of which some part is no HTTP/1.x. Its connection is closed."""
    if UNREADABLE in scope["state"] or scope["http_version"] not in ("1.0", "1.1"):
        raise ApiError(
            400,
            "The request, or a part of its body, is not valid HTTP/1.1, or its headers are longer "
            "than 16 KiB: send it by an HTTP/1.1 client, with short headers.",
            code="invalid_http",
            headers={"Connection": "close"},
        )
