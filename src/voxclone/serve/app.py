"""The app: routes, middleware, and a description that is true of its errors."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from voxclone.io import remove_abandoned
from voxclone.serve import errors, speech, status, voices
from voxclone.serve.catalog import Catalog
from voxclone.serve.decoding import DecodingProcess
from voxclone.serve.metrics import Metrics
from voxclone.serve.middleware import GuardMiddleware, PagesMiddleware, RequestMiddleware
from voxclone.serve.schemas import ErrorEnvelope
from voxclone.serve.service import Service
from voxclone.serve.settings import ServeSettings
from voxclone.serve.worker import Worker
from voxclone.voice.store import open_folder

ANY_ERROR = ("400", "401", "403", "408", "413", "415", "429", "500", "503")


def build_app(settings: ServeSettings, catalog: Catalog, load: Callable[[], Any]) -> FastAPI:
    """An app that loads its model by `load` when it starts. `app.state.service` are its parts."""
    worker = Worker(load, settings.limits)
    metrics = Metrics(worker)
    decoding = DecodingProcess(settings.limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        remove_abandoned(open_folder(settings.voices))
        decoding.start()
        worker.start()
        yield
        worker.stop()
        decoding.stop()

    # The description's own pages load scripts from another host.
    app = FastAPI(title="voxclone", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = Service(settings, catalog, worker, decoding, metrics)
    errors.install(app)
    for router in (speech.router, voices.router, status.router):
        app.include_router(router)
    app.add_middleware(GuardMiddleware, settings=settings)  # the last that is added comes first
    if settings.origins:
        app.add_middleware(
            PagesMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["*"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["X-Request-Id", "X-Seed", "Retry-After"],
        )
    app.add_middleware(RequestMiddleware, metrics=metrics)
    app.openapi = lambda: _description(app)  # type: ignore[method-assign]
    return app


def _description(app: FastAPI) -> dict[str, Any]:
    """OpenAPI with the errors that there are: all in one shape, and no 422."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version="1", routes=app.routes)
        parts = schema["components"]["schemas"]
        parts.pop("HTTPValidationError", None), parts.pop("ValidationError", None)
        named = ErrorEnvelope.model_json_schema(ref_template="#/components/schemas/{model}")
        parts |= named.pop("$defs")
        parts["ErrorEnvelope"] = named
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}}
        for operations in schema["paths"].values():
            for operation in operations.values():
                answers = operation["responses"]
                answers.pop("422", None)
                for code in ANY_ERROR:
                    answers.setdefault(code, {"description": "Error", "content": content})
        app.openapi_schema = schema
    return app.openapi_schema
