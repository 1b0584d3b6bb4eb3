"""What every request goes through: an id, who may ask, how much may be sent, and the access log."""

import asyncio
import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voxclone.serve.errors import GONE, ApiError, stopping
from voxclone.serve.metrics import Metrics
from voxclone.serve.protocol import check_readable
from voxclone.serve.settings import ServeSettings, is_loopback

access_log = logging.getLogger("voxclone.serve.access")

OPEN = re.compile(r"/|/health|/ready|/page/[\w.-]+|/favicon\.ico")
UPLOADS = re.compile(r"/v1/audio/voices(/.*)?")
FORM_BYTES = 64 * 2**10  # for the fields and boundaries around an upload
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
REQUEST_ID = re.compile(r"[\w.-]{1,64}")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class RequestMiddleware:
    """The outermost: every answer has an id, a line in the access log, and counts."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        begun, status, sent = time.monotonic(), 0, 0

        async def answer(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", [])
                out = MutableHeaders(scope=message)
                out["X-Request-Id"] = request_id
                for name, value in HEADERS.items():
                    out.setdefault(name, value)
            elif scope["method"] != "HEAD":  # whose body the server drops
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except asyncio.CancelledError:  # the server ends, and has waited as long as it may
            if not status:
                await stopping().response()(scope, receive, answer)
        except Exception:
            status = status or 500
            raise
        finally:
            self._note(scope, status or GONE, sent, time.monotonic() - begun, request_id)

    def _note(self, scope: Scope, status: int, sent: int, seconds: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", "-")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "id": request_id,
            "client": (scope.get("client") or ("-",))[0],
            "method": scope["method"] if scope["method"].isalpha() else "-",
            "route": route,
            "status": status,
            "bytes": sent,
            "ms": round(seconds * 1000),
        }
        access_log.info(json.dumps(line | scope["state"].get("noted", {})))


class PagesMiddleware(CORSMiddleware):
    """What browsers are told of pages of other hosts; a refusal is an error like all others."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        if not self.is_allowed_origin(request_headers["origin"]):
            refusal = wrong_origin()
        else:
            message = "A page of another host may not send this: see `Access-Control-Allow-*`."
            refusal = ApiError(400, message, code="wrong_preflight")
        response = refusal.response()
        for name in answer.headers:
            if name == "vary" or name.startswith("access-control-"):
                response.headers[name] = answer.headers[name]
        return response


class GuardMiddleware:
    """Who may ask, and how much may be sent."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app, self._settings = app, settings
        key = settings.api_key
        self._key = None if key is None else hashlib.sha256(key.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            check_readable(scope)
            self._check(scope["method"], scope["path"], headers)
            limit = self._limit(scope["path"], headers)
        except ApiError as refusal:
            await refusal.response()(scope, receive, send)
            return
        await self._app(scope, self._bounded(scope, receive, limit), send)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        """Raise ApiError for who may not ask."""
        if self._key is None:
            # Without a key, pages of other hosts must not reach the server through a browser that
            # runs on this machine: neither by a name that they point here, nor across origins.
            host = headers.get("host", "")
            name = urlsplit(f"//{host}").hostname or ""
            if not is_loopback(name) and name != self._settings.host:
                raise ApiError(403, "This server is asked as localhost only.", code="wrong_host")
            origin = headers.get("origin")
            own = origin is None or urlsplit(origin).netloc == host
            if not own and method not in SAFE_METHODS and origin not in self._settings.origins:
                raise wrong_origin()
        elif not OPEN.fullmatch(path):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            digest = hashlib.sha256(given.strip().encode()).digest()
            if scheme.lower() != "bearer" or not hmac.compare_digest(digest, self._key):
                raise ApiError(
                    401,
                    "The API key is missing or wrong: send `Authorization: Bearer KEY`.",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )

    def _limit(self, path: str, headers: Headers) -> int:
        """The most bytes of a body. Raises ApiError where more are announced."""
        limits = self._settings.limits
        upload = UPLOADS.fullmatch(path) is not None
        limit = limits.upload_bytes + FORM_BYTES if upload else limits.json_bytes
        announced = headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced) > limit:
            raise _too_large(limit)
        return limit

    def _bounded(self, scope: Scope, receive: Receive, limit: int) -> Receive:
        """`receive` that refuses a body that is too long, too long on its way, or no HTTP."""
        taken, complete = 0, False
        deadline = time.monotonic() + self._settings.limits.body_seconds

        async def bounded() -> Message:
            nonlocal taken, complete
            if complete:
                return await receive()
            left = deadline - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), max(left, 0.001))
            except TimeoutError:
                raise ApiError(408, "The body took too long to arrive.", code="timeout") from None
            check_readable(scope)
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if taken > limit:
                    raise _too_large(limit)
            return message

        return bounded


def wrong_origin() -> ApiError:
    """The refusal of a page of another host."""
    return ApiError(403, "Pages of other hosts may not ask this.", code="wrong_origin")


def _too_large(limit: int) -> ApiError:
    megabytes = limit / 2**20
    return ApiError(413, f"The body is larger than {megabytes:.2f} MiB.", code="too_large")
