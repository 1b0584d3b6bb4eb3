"""Server-sent events, in the dialect of OpenAI's clients."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from voxclone.serve.errors import ApiError, server_error

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event(kind: str, values: Mapping[str, Any]) -> bytes:
    """One event; its data name its type, too, since OpenAI's clients look there."""
    data = json.dumps({"type": kind, **values}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


async def with_error(
    stream: AsyncIterator[bytes], kind: str, request_id: str
) -> AsyncIterator[bytes]:
    """Events, and an error in their midst as one more of a kind: the status has been sent."""
    try:
        async for each in stream:
            yield each
    except Exception as error:
        known = error if isinstance(error, ApiError) else server_error(error, request_id)
        yield event(kind, known.body())
