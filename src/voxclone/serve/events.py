"""Server-sent events, in the dialect of OpenAI's clients."""

import json
from collections.abc import Mapping
from typing import Any

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event(kind: str, values: Mapping[str, Any]) -> bytes:
    """One event; its data name its type, too, since OpenAI's clients look there."""
    data = json.dumps({"type": kind, **values}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()
