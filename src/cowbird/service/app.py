"""The HTTP interface: routes, who may use them, and what is answered.

Answers are JSON in ASCII, so no text of a seller hides or steers anything in them. Whatever goes wrong with a request
is answered in one form: a code for programs, a message, a hint. Nothing of a body is repeated but the place that is
wrong.
"""

import json
import math
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cowbird import __version__
from cowbird.errors import UserError
from cowbird.service.access import ADMIN_CLIENT
from cowbird.service.requests import (
    RefusedRequestError,
    TitleBatch,
    TitleUpload,
    UploadedTitles,
    parse_title,
    parse_titles,
    read_body,
)
from cowbird.service.scanners import ServedScanner, TitleJudgment
from cowbird.service.state import ServiceState
from cowbird.service.telemetry import METRICS_TYPE

_SECURITY_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
_ROUTES = frozenset({"/v1/title", "/v1/titles", "/v1/scanner", "/v1/reload", "/health", "/ready", "/metrics"})
"""Routes that metrics tell apart; a stranger's paths are one."""
Handler = Callable[[Request], Awaitable[Response]]
"""Answers a request."""


def make_app(state: ServiceState, on_stop: Callable[[], Awaitable[None]]) -> ASGIApp:
    """Return the application of a service.

    Args:
        state: The service.
        on_stop: Awaited once all requests are answered.
    """

    @asynccontextmanager
    async def run(_: FastAPI) -> AsyncGenerator[None]:
        yield
        await on_stop()

    app = FastAPI(
        title="Cowbird", version=__version__, description="Judges titles of items for planted triggers.",
        docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=run,
    )  # fmt: skip
    routes = _Routes(state)
    bodies = {"/v1/title": TitleUpload, "/v1/titles": TitleBatch}
    for path, method, handler, summary in (
        ("/v1/title", "POST", routes.judge_title, "Judge one title"),
        ("/v1/titles", "POST", routes.judge_titles, "Judge several titles, each by itself"),
        ("/v1/scanner", "GET", routes.show_scanner, "Tell which scanner judges"),
        ("/v1/reload", "POST", routes.reload, "Open the scanner anew"),
        ("/metrics", "GET", routes.show_metrics, "Counters for Prometheus"),
        ("/health", "GET", routes.show_health, "Whether the service runs"),
        ("/ready", "GET", routes.show_readiness, "Whether titles are judged and logged"),
    ):
        form = bodies.get(path)
        app.add_api_route(
            path, handler, methods=[method], summary=summary, response_class=Response,
            openapi_extra=_describe_route(path, None if form is None else form.model_json_schema()),
            responses=_ANSWERS,
        )  # fmt: skip
    app.add_exception_handler(RefusedRequestError, _answer_refusal)
    app.add_exception_handler(HTTPException, _answer_http_error)
    return _Guard(app, state)


_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"description": what}
    for status, what in (
        (401, "No token, or nobody's."),
        (403, "Another client may do that."),
        (404, "No such path."),
        (405, "No such method of this path."),
        (408, "The body took too long to come."),
        (409, "The scanner was not replaced."),
        (413, "Too many bytes or titles."),
        (415, "No JSON by its type."),
        (422, "Another form, or a title that is too long."),
        (429, "Too many titles of this client."),
        (503, "Not now: try again."),
    )
}


def _describe_route(path: str, form: dict[str, Any] | None) -> dict[str, Any]:
    told: dict[str, Any] = {} if path in ("/health", "/ready") else {"security": [{"token": []}]}
    if form is not None:
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": _inline(form)}}}
    return told


def _inline(form: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without references, which would point nowhere inside of another document."""
    named: dict[str, Any] = form.pop("$defs", {})
    return {key: _resolve(value, named) for key, value in form.items()}


def _resolve(part: Any, named: dict[str, Any]) -> Any:
    if isinstance(part, list):
        return [_resolve(each, named) for each in cast("list[Any]", part)]
    if not isinstance(part, dict):
        return part
    held = cast("dict[str, Any]", part)
    name = str(held.get("$ref", "")).rpartition("/")[2]
    return _resolve(named[name], named) if name else {key: _resolve(value, named) for key, value in held.items()}


class _Routes:
    """What each route does."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state

    def _find_client(self, request: Request) -> str:
        """Return who asks.

        Raises:
            RefusedRequestError: If the token is nobody's.
        """
        tokens = self._state.tokens
        if tokens is None:
            return "anybody"
        found = tokens.find_client(request.headers.get("authorization", "").encode("latin-1", "replace"))
        if found is None:
            self._state.telemetry.record_refusal("token")
            raise RefusedRequestError(
                401, "token", "This needs a token.", "Send the header Authorization: Bearer TOKEN.", close=True
            )
        return found

    async def judge_title(self, request: Request) -> Response:
        """Judge one title."""
        client = self._find_client(request)
        uploaded = parse_title(await read_body(request, self._state.limits), self._state.limits)
        return await self._judge(request, uploaded, client, single=True)

    async def judge_titles(self, request: Request) -> Response:
        """Judge several titles, each by itself."""
        client = self._find_client(request)
        uploaded = parse_titles(await read_body(request, self._state.limits), self._state.limits)
        return await self._judge(request, uploaded, client, single=False)

    async def _judge(self, request: Request, uploaded: UploadedTitles, client: str, single: bool) -> Response:
        number = request.scope["request_id"]
        logged = await self._state.judge(uploaded, client, number)
        verdicts = [
            {"id": id_, **_describe_verdict(title, each), "number": logged.first + nth}
            for nth, (title, id_, each) in enumerate(zip(uploaded.titles, uploaded.ids, logged.found, strict=True))
        ]
        about = {"scanner": logged.scanner.label, "scanner_sha256": logged.scanner.sha256, "request": number}
        return _make_response(200, verdicts[0] | about if single else {"verdicts": verdicts} | about)

    async def show_scanner(self, request: Request) -> Response:
        """Tell which scanner judges."""
        self._find_client(request)
        crew = self._state.crew
        if crew is None:
            raise self._state.refuse(503, "starting", "The scanner is being opened.", wait=5.0)
        return _make_response(200, _describe_scanner(crew.scanner))

    async def reload(self, request: Request) -> Response:
        """Open the scanner anew."""
        client, tokens = self._find_client(request), self._state.tokens
        if tokens is not None and not tokens.may_reload(client):
            raise self._state.refuse(403, "client", f"Only '{ADMIN_CLIENT}' may open the scanner anew.")
        try:
            return _make_response(200, _describe_scanner(await self._state.reload()))
        except UserError as error:
            message = f"The old scanner goes on. {error.message}"
            raise RefusedRequestError(409, "scanner", message, error.hint) from None

    async def show_metrics(self, request: Request) -> Response:
        """Return counters for Prometheus."""
        self._find_client(request)
        crew = self._state.crew
        return Response(self._state.telemetry.render(0 if crew is None else crew.waiting), media_type=METRICS_TYPE)

    async def show_health(self, request: Request) -> Response:
        """Tell that the service runs."""
        return _make_response(200, {"status": "running"})

    async def show_readiness(self, request: Request) -> Response:
        """Tell whether titles are judged and logged."""
        if self._state.ready:
            return _make_response(200, {"status": "ready"})
        what = "stopping" if self._state.stopping else "log" if self._state.log.failure else "starting"
        return _make_response(503, {"status": what}, {"Retry-After": "5"})


def _describe_verdict(title: str, found: TitleJudgment) -> dict[str, Any]:
    span = None if found.start is None or found.end is None else title[found.start : found.end]
    return {**found._asdict(), "span": span}


def _describe_scanner(scanner: ServedScanner) -> dict[str, Any]:
    return {
        "scanner": scanner.label,
        "scanner_sha256": scanner.sha256,
        "threshold": scanner.threshold,
        "allowed_texts": len(scanner.allow),
        "basis": scanner.basis,
    }


def _make_response(status: int, content: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(content, ensure_ascii=True), status, headers, media_type="application/json")


def make_error_response(
    status: int, code: str, message: str, hint: str = "", headers: dict[str, str] | None = None
) -> Response:
    """Return an error in the one form that all have."""
    return _make_response(status, {"error": {"code": code, "message": message, "hint": hint}}, headers)


async def _answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedRequestError)
    headers: dict[str, str] = {}
    if error.wait is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.wait)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.close:
        headers["Connection"] = "close"
    return make_error_response(error.status, error.code, error.message, error.hint, headers)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {}) | {"Connection": "close"}
    code = {404: "path", 405: "method"}.get(error.status_code, "request")
    return make_error_response(error.status_code, code, f"{error.detail}.", "See /openapi.json.", headers)


class _Guard:
    """Around the application: an id for each request, times, headers, and one form even for what nobody expected."""

    def __init__(self, app: ASGIApp, state: ServiceState) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["request_id"] = number = secrets.token_hex(8)
        begun, status = time.perf_counter(), 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = [*_SECURITY_HEADERS, (b"x-request-id", number.encode())]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception as error:
            self._state.telemetry.record_refusal(type(error).__name__)
            if status:
                raise
            await make_error_response(500, "error", "This is a fault of the service.")(scope, receive, send_on)
        finally:
            route = scope["path"] if scope["path"] in _ROUTES else "other"
            self._state.telemetry.record_request(route, status, time.perf_counter() - begun)
