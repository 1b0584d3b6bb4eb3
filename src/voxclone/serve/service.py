"""What the routes share, and how they wait for the model."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from voxclone.serve.catalog import Catalog
from voxclone.serve.decoding import DecodingProcess
from voxclone.serve.engine import Engine
from voxclone.serve.errors import refused
from voxclone.serve.metrics import Metrics
from voxclone.serve.results import ClientGoneError
from voxclone.serve.settings import ServeSettings
from voxclone.serve.worker import Slot, Worker

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class Service:
    """The parts of a server."""

    settings: ServeSettings
    catalog: Catalog
    worker: Worker
    decoding: DecodingProcess
    metrics: Metrics

    async def ask(
        self, request: Request, function: Callable[[Engine], ValueT], param: str | None = None
    ) -> ValueT:
        """What a function makes of the model, in its thread and in its turn. Raises ApiError."""
        with self.worker.reserve() as slot:
            return await self.wait(request, slot.run(function), param)

    async def wait(
        self, request: Request, awaited: Awaitable[ValueT], param: str | None = None
    ) -> ValueT:
        """A result, unless the client goes away before. Raises ApiError for errors of the package,
        of which `param` names the field."""
        gone = asyncio.ensure_future(_gone(request.receive))
        waiting = asyncio.ensure_future(awaited)
        try:
            await asyncio.wait([gone, waiting], return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                gone.result()  # raises for a body that is refused: its client is still there
                self.metrics.abandoned.inc()
                raise ClientGoneError
            with refused(param):
                return waiting.result()
        finally:
            gone.cancel(), waiting.cancel()


class JobStreamingResponse(StreamingResponse):
    """A response that keeps a slot of the queue until its last byte, or until its client goes."""

    def __init__(
        self,
        content: Any,
        slot: Slot,
        media_type: str,
        headers: Mapping[str, str],
        abandoned: Callable[[], object],
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._slot, self._abandoned, self._complete = slot, abandoned, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._slot:
            await super().__call__(scope, receive, send)
        if not self._complete:
            self._abandoned()

    async def stream_response(self, send: Send) -> None:
        await super().stream_response(send)
        self._complete = True


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Shared = Annotated[Service, Depends(service_of)]


async def _gone(receive: Receive) -> None:
    """Returns when the client has gone; its body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
