"""Errors as OpenAI's clients read them, always: `{"error": {message, type, param, code}}`."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from voxclone.errors import (
    AudioError,
    MissingExtraError,
    ReleaseError,
    StorageError,
    UnknownVoiceError,
    VoiceExistsError,
    VoxcloneError,
)
from voxclone.serve.results import ClientGoneError

GONE = 499
"""The status of an answer that nobody waits for, in the log; nobody is sent it."""
log = logging.getLogger("voxclone.serve")

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
ROUTES = {
    404: ("not_found", "There is no such route: `/openapi.json` describes all."),
    405: ("method_not_allowed", "This route has other methods: `Allow` names them."),
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
AUDIO_STATUS = {"undecodable": 415, "too long": 413}
FAULTS = (ReleaseError, StorageError)
"""Errors of the package that no client can mend: of the release, and of the folder of voices."""


class ApiError(HTTPException):
    """A refusal. `code` is for programs, `message` says what, where and how to mend it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers=headers)
        self.message, self.code, self.param = message, code, param

    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status_code)
        if kind is None:
            kind = "server_error" if self.status_code >= 500 else "invalid_request_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status_code, headers=dict(self.headers or {}))


def invalid_value(param: str, message: str) -> ApiError:
    """A refusal of the value of a field."""
    return ApiError(400, message, code="invalid_value", param=param)


def model_not_found(name: str, known: str) -> ApiError:
    """A refusal of a model that is not the one of this server."""
    message = f"There is no model {name[:100]!r}: this server has {known!r}."
    return ApiError(404, message, code="model_not_found", param="model")


def busy(status: int, message: str, code: str, seconds: int) -> ApiError:
    """A refusal that will be none later."""
    return ApiError(status, message, code=code, headers={"Retry-After": str(seconds)})


def stopping() -> ApiError:
    """A refusal of what the server cannot answer before it ends."""
    return ApiError(503, "The server stops: ask again when it is back.", code="stopping")


@contextmanager
def refused(param: str | None = None) -> Iterator[None]:
    """Within, errors of the package become refusals, except for the server's own faults. Raises
    ApiError; `param` is as for `api_error`."""
    try:
        yield
    except FAULTS:
        raise
    except VoxcloneError as error:
        raise api_error(error, param) from None


def hide_paths(message: str, names: Mapping[str, str]) -> str:
    """A message with names in place of paths of this machine."""
    for path in sorted(names, key=len, reverse=True):  # one may be the beginning of another
        message = message.replace(path, names[path])
    return message


@contextmanager
def paths_hidden(names: Mapping[str, str]) -> Iterator[None]:
    """Within, errors have names in place of paths; the server's own faults keep theirs for the log.
    It is for work whose errors quote nothing that a client sends: its text must not be changed."""
    try:
        yield
    except FAULTS:
        raise
    except VoxcloneError as error:
        error.args = (hide_paths(str(error), names),)
        raise


def api_error(error: VoxcloneError, param: str | None = None) -> ApiError:
    """The answer for an error of the package. `param` names the field that it is of, unless the
    error does: a speech names a voice by `voice`, all other routes by `name`."""
    unknown, message = "voice" if param is None else "name", str(error)
    if isinstance(error, UnknownVoiceError):
        return ApiError(404, message, code="voice_not_found", param=unknown)
    if isinstance(error, VoiceExistsError):
        return ApiError(409, message, code="voice_exists", param="name")
    if isinstance(error, AudioError):
        status = AUDIO_STATUS.get(error.rule, 400)
        code = f"audio_{error.rule.replace(' ', '_')}"
        return ApiError(status, message, code=code, param="audio_sample")
    if isinstance(error, MissingExtraError):
        return ApiError(501, message, code="not_installed", param=param)
    return ApiError(400, message, code="bad_request", param=param)


def server_error(error: Exception, request_id: str) -> ApiError:
    """The whole answer for a fault of the server, or for what nobody foresaw; the log has the
    rest."""
    if isinstance(error, FAULTS):
        log.error("request %s failed: %s", request_id, error)
    else:
        log.error("request %s failed", request_id, exc_info=error)
    message = f"Something went wrong on the server. The log has the error of request {request_id}."
    return ApiError(500, message, code="internal_error")


def install(app: FastAPI) -> None:
    """Have every error of an app answered in one shape."""

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, ClientDisconnect):  # for the framework, a bad body
            return Response(status_code=GONE)
        if not isinstance(error, ApiError):
            code, message = ROUTES.get(error.status_code, ("bad_request", str(error.detail)))
            headers = {"Allow": _methods(request)} if error.status_code == 405 else error.headers
            error = ApiError(error.status_code, message, code=code, headers=headers)
        return error.response()

    @app.exception_handler(ClientDisconnect)  # in the middle of its body
    @app.exception_handler(ClientGoneError)
    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=GONE)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _invalid(error).response()

    @app.exception_handler(ReleaseError)
    @app.exception_handler(StorageError)
    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        request_id = request.scope["state"]["request_id"]
        response = server_error(error, request_id).response()
        response.headers["X-Request-Id"] = request_id  # the unforeseen go around the middleware
        return response


def _methods(request: Request) -> str:
    """All methods that the routes of a path take; the framework names those of one route."""

    def taken(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return ", ".join(filter(taken, METHODS))


def _invalid(error: RequestValidationError) -> ApiError:
    """The first mistake in a request, as a sentence."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    kind, reason = first["type"], str(first["msg"]).removeprefix("Value error, ")
    if kind == "json_invalid":
        reason = first["ctx"]["error"]
        return ApiError(400, f"The body is not valid JSON: {reason}.", code="invalid_json")
    if not place:
        message = "Send a JSON object, with `Content-Type: application/json`."
        return ApiError(400, message, code="invalid_json")
    param = place[0]  # further parts name a type of ours, as in `voice.str`
    if kind == "missing":
        message = f"{param!r} is missing."
    elif kind == "extra_forbidden":
        message = f"{param!r} is not known here: leave it out."
    else:
        message = f"{param!r} cannot be used: {reason[:1].lower()}{reason[1:].rstrip('.')}."
    return invalid_value(param, message[:1000])
