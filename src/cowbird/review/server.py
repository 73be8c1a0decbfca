"""The local page of a review. Only this machine reaches it, and only who knows its address.

The address holds a random token. A page of a stranger in the same browser can neither guess it nor send anything here:
the names of host and origin are checked, and the browser is told to load nothing from elsewhere.
"""

import hmac
import json
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Config, Server

from cowbird.errors import OutageError, UserError
from cowbird.review.grouped_store import Choice, GroupState, Target
from cowbird.review.store import ReviewStore
from cowbird.text import escape_terminal

HOST = "127.0.0.1"
"""The only address that is listened at."""
MAX_CONTEXT = 160
"""Characters shown before and behind a span."""
MAX_SHOWN_SPAN = 300
"""Characters shown of a span."""
MAX_POST_BYTES = 4096
"""Largest body of a request."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_FILES = {
    "": ("page.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
}


class Decision(BaseModel):
    """What the page sends when a key is pressed."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    target: Target
    """What it is about."""
    id: int
    """Id of the group or the finding."""
    mark: str = Field(max_length=64)
    """Its mark, as it was listed."""
    choice: Choice
    """The decision."""


class UndoRequest(BaseModel):
    """What the page sends to take a decision back."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    number: int | None = Field(default=None, ge=0, lt=2**63)
    """Number of the decision; none for the last one, whoever made it."""


class PageQuery(BaseModel):
    """Which part of a list is asked for."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    offset: int = Field(default=0, ge=0, le=10**9)
    """Rows before it."""
    limit: int = Field(default=100, ge=1, le=500)
    """Rows of it at most."""


class GroupQuery(PageQuery):
    """Which groups are asked for."""

    search: str = Field(default="", max_length=200)
    """A text that stands in a title of the group, or is the id of its item."""
    state: GroupState = "all"
    """Whether they are decided."""


class FindingQuery(PageQuery):
    """Which findings are asked for."""

    group: int
    """Number of their group."""
    mark: str = Field(default="", max_length=64)
    """Mark of their group; empty for whichever has the number now."""


def make_review_app(store: ReviewStore, token: str, port: int) -> ASGIApp:
    """Return the application of a review.

    Args:
        store: Findings and decisions.
        token: Stands in each path.
        port: The port that the browser asks.
    """
    routes = [
        *(_show_file(path, name, kind) for path, (name, kind) in _FILES.items()),
        Route("/api/summary", partial(_summarize, store)),
        Route("/api/groups", partial(_list_groups, store)),
        Route("/api/groups/{group}/findings", partial(_list_findings, store)),
        Route("/api/decisions", partial(_decide, store), methods=["POST"]),
        Route("/api/undo", partial(_undo, store), methods=["POST"]),
        Route("/api/export", partial(_export, store), methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {
        ValidationError: _answer_form_error,
        ClientDisconnect: _answer_too_large,
        OutageError: _answer_outage,
        UserError: _answer_refusal,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return _LocalGuard(app, token, port)


def _show_file(path: str, name: str, kind: str) -> Route:
    content = resources.files("cowbird.review").joinpath(name).read_bytes()

    def show(request: Request) -> Response:
        return Response(content, media_type=kind)

    return Route(f"/{path}", show)


def _summarize(store: ReviewStore, request: Request) -> Response:
    trouble = ""
    try:
        store.refresh()
    except UserError as error:  # what was read before stays
        trouble = escape_terminal(str(error), 300)
    return _answer(store.count() | {"file": escape_terminal(store.findings.name, 100), "trouble": trouble})


async def _undo(store: ReviewStore, request: Request) -> Response:
    asked = UndoRequest.model_validate_json(await request.body() or b"{}")
    undone = await run_in_threadpool(store.undo, asked.number)
    if undone is None:
        return _answer({"undone": None, "before": None})
    return _answer({"undone": {"target": undone.target, "choice": undone.choice}, "before": undone.before})


def _list_groups(store: ReviewStore, request: Request) -> Response:
    asked = GroupQuery.model_validate(dict(request.query_params))
    page = store.list_groups(asked.offset, asked.limit, asked.search, asked.state)
    return _answer({"total": page.total, "rows": [_show_group(row) for row in page.rows]})


def _list_findings(store: ReviewStore, request: Request) -> Response:
    asked = FindingQuery.model_validate({**request.query_params, **request.path_params})
    if not _is_number(asked.group):
        return _answer({"error": "number"}, 404)
    page = store.list_findings(asked.group, asked.offset, asked.limit, asked.mark)
    return _answer({"total": page.total, "rows": [_show_finding(row) for row in page.rows]})


async def _decide(store: ReviewStore, request: Request) -> Response:
    asked = Decision.model_validate_json(await request.body())
    if not _is_number(asked.id):
        return _answer({"error": "number"}, 404)
    number = await run_in_threadpool(store.decide, asked.target, asked.id, asked.choice, asked.mark)
    return _answer({"decided": True, "number": number})


def _export(store: ReviewStore, request: Request) -> Response:
    try:
        made = store.export_allowed()
    except OutageError:
        raise
    except UserError as error:
        return _answer({"file": None, "said": escape_terminal(error.message, 300)})
    return _answer({"file": escape_terminal(made.path.name, 200), "texts": made.texts, "left_out": made.left_out})


def _is_number(value: int) -> bool:
    """Tell whether a number fits into the file of decisions."""
    return -(2**63) <= value < 2**63


def _answer(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content, ensure_ascii=True), status, media_type="application/json")


async def _answer_form_error(request: Request, error: Exception) -> Response:
    return _answer({"error": "form"}, 422)


async def _answer_too_large(request: Request, error: Exception) -> Response:
    return _answer({"error": "too large"}, 413)


async def _answer_outage(request: Request, error: Exception) -> Response:
    return _answer({"error": escape_terminal(str(error), 300)}, 507)


async def _answer_refusal(request: Request, error: Exception) -> Response:
    return _answer({"error": escape_terminal(str(error), 300)}, 409)


def _show_title(title: str, start: int | None, stop: int | None) -> dict[str, str]:
    """Return a title in three parts in which everything can be seen."""
    if start is None or stop is None:
        return {"before": escape_terminal(title, MAX_CONTEXT + MAX_SHOWN_SPAN), "span": "", "after": ""}
    before = title[:start]
    if len(before) > MAX_CONTEXT:
        before = "…" + before[-MAX_CONTEXT:]
    return {
        "before": _show_beside(before),
        "span": escape_terminal(title[start:stop], MAX_SHOWN_SPAN),
        "after": _show_beside(title[stop:]),
    }


def _show_beside(text: str) -> str:
    return text if text == " " else escape_terminal(text, MAX_CONTEXT + 1)


def _show_group(row: dict[str, Any]) -> dict[str, Any]:
    example = row["example"]
    return {
        **{name: row[name] for name in ("id", "mark", "tier", "many", "best", "choice")},
        "fragment": escape_terminal(row["fragment"], 200),
        "reason": escape_terminal(row["reason"], 300),
        "example": _show_title(example["title"], example["start"], example["stop"]),
    }


def _show_finding(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: row[name] for name in ("id", "mark", "row", "score", "tier", "choice")},
        "item": escape_terminal(row["item"], 100),
        "reason": escape_terminal(row["reason"], 300),
        "title": _show_title(row["title"], row["start"], row["stop"]),
    }


class _LocalGuard:
    """Lets through what comes from the page itself, and nothing else."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token.encode()
        self._hosts = {f"{name}:{port}".encode() for name in (HOST, "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        _, _, rest = scope["path"].partition("/")
        token, slash, rest = rest.partition("/")
        if (
            not self._is_own(scope)
            or not slash
            or not hmac.compare_digest(token.encode("utf-8", "replace"), self._token)
        ):
            await _answer({"error": "This address leads nowhere."}, 403)(scope, receive, send_on)
            return
        inner: Scope = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode("utf-8", "replace")}
        await self._limit(self._app)(inner, receive, send_on)

    def _is_own(self, scope: Scope) -> bool:
        """Tell whether a request names this host, and comes from its page where it says so."""
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return False
        origin = [value for name, value in headers if name == b"origin"]
        site = [value for name, value in headers if name == b"sec-fetch-site"]
        if any(value not in (b"same-origin", b"none") for value in site):
            return False
        if scope["method"] == "POST":
            kind = [value.partition(b";")[0] for name, value in headers if name == b"content-type"]
            return kind == [b"application/json"] and all(value == b"http://" + hosts[0] for value in origin)
        return scope["method"] == "GET"

    @staticmethod
    def _limit(app: ASGIApp) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        """Return the application behind a limit on bodies."""

        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            taken = 0

            async def receive_some() -> Message:
                nonlocal taken
                message = await receive()
                taken += len(message.get("body", b""))
                if taken > MAX_POST_BYTES:
                    return {"type": "http.disconnect"}
                return message

            await app(scope, receive_some, send)

        return run


def serve_review(store: ReviewStore, port: int, announce: Callable[[str], None]) -> None:
    """Serve the page until a signal ends it.

    Args:
        store: Findings and decisions.
        port: The port; 0 for a free one.
        announce: Told the address once it can be opened.

    Raises:
        UserError: If nothing can listen at the port.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, port))
            listener.listen(128)
        except OSError as error:
            raise UserError(
                f"Nothing can listen at port {port}: {error.strerror or error}.", "Choose another: --port."
            ) from None
        token, place = secrets.token_urlsafe(24), listener.getsockname()[1]
        config = Config(
            make_review_app(store, token, place), log_config=None, access_log=False, ws="none", lifespan="off",
            server_header=False, proxy_headers=False, timeout_graceful_shutdown=2,
        )  # fmt: skip
        announce(f"http://{HOST}:{place}/{token}/")
        with suppress(KeyboardInterrupt):  # which uvicorn raises again once it has ended
            Server(config).run(sockets=[listener])
