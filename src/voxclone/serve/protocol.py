"""HTTP as uvicorn reads it. What it cannot read is refused by the app, as all else is."""

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from voxclone.serve.errors import ApiError

UNREADABLE = "unreadable"
"""Is set in the state of a request of which some part is no HTTP."""
STAND_IN = b"- * HTTP/1.1\r\nHost: -\r\nConnection: close\r\n\r\n"


class Protocol(H11Protocol):
    """A connection whose app has the word on every error: uvicorn's own answer is plain text."""

    def send_400_response(self, msg: str) -> None:
        """Let the app refuse what was sent. `msg` is uvicorn's sentence."""
        if self.conn.our_state is h11.IDLE:  # no request was read: another one takes its place
            self.conn = h11.Connection(h11.SERVER)
            self.conn.receive_data(STAND_IN)
            self.handle_events()
        if self.cycle.response_complete:
            self.transport.close()
            return
        self.cycle.scope["state"][UNREADABLE] = True  # before its task runs, or while it reads
        self.cycle.keep_alive = False
        self.cycle.message_event.set()


def check_readable(scope: Scope) -> None:
    """Raise ApiError for a request of which some part is no HTTP."""
    if UNREADABLE in scope["state"]:
        message = "This is no HTTP/1.1 request, or its headers are longer than 16 KiB."
        raise ApiError(400, message, code="invalid_http")
