"""What clients send, and what of it is refused: bodies are read within limits and checked field by field."""

import asyncio
import json
from typing import Annotated, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request

from cowbird.service.limits import ServiceLimits
from cowbird.text import escape_terminal

BodyT = TypeVar("BodyT", bound=BaseModel)
JSON_TYPE = "application/json"
"""The only media type that is taken."""


class TitleUpload(BaseModel):
    """A title to judge."""

    model_config = ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True)

    title: str
    """The title, as the seller wrote it."""
    id: Annotated[str, Field(max_length=200)] | Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    """Id of the item, for the log; it comes back with the verdict."""


class TitleBatch(BaseModel):
    """Titles to judge, each by itself."""

    model_config = ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True)

    titles: list[TitleUpload | str] = Field(min_length=1)
    """The titles, alone or with ids."""


class RefusedRequestError(Exception):
    """A request that is not answered with verdicts.

    Args:
        status: Its HTTP status.
        code: Why, in a word that programs read.
        message: What was expected, and what was got.
        hint: What to do about it.
        wait: Seconds until it may be tried again; `None` if that is no help.
        close: Whether the connection ends with it, since its body was not read.
    """

    def __init__(
        self, status: int, code: str, message: str, hint: str = "", wait: float | None = None, close: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.hint = status, code, message, hint
        self.wait, self.close = wait, close


class UploadedTitles(NamedTuple):
    """The titles of a request, and their ids."""

    titles: list[str]
    ids: list[str | int | None]


async def read_body(request: Request, limits: ServiceLimits) -> bytes:
    """Read a body within limits.

    Raises:
        RefusedRequestError: If it is no JSON by its type, too large, or too slow.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON_TYPE:
        raise RefusedRequestError(
            415, "media_type", f"A body is {JSON_TYPE}.", f"Send the header Content-Type: {JSON_TYPE}.", close=True
        )
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise RefusedRequestError(415, "encoding", "A body is not compressed.", "Send it as it is.", close=True)
    large = RefusedRequestError(
        413, "too_large", f"A body has {limits.max_body:,} bytes at most.", "Send fewer titles at once.", close=True
    )
    told = request.headers.get("content-length", "")
    if told.isascii() and told.isdigit() and (len(told) > 15 or int(told) > limits.max_body):
        raise large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.read_timeout):
            async for part in request.stream():
                body += part
                if len(body) > limits.max_body:
                    raise large
    except TimeoutError:
        raise RefusedRequestError(408, "slow", "The body took too long to come.", close=True) from None
    except ClientDisconnect:
        raise RefusedRequestError(400, "gone", "The client went away.", close=True) from None
    return bytes(body)


def parse_title(body: bytes, limits: ServiceLimits) -> UploadedTitles:
    """Return the one title of a body.

    Raises:
        RefusedRequestError: If the body has another form, or the title is too long.
    """
    found = _validate(TitleUpload, body)
    return _check_lengths(UploadedTitles([found.title], [found.id]), limits)


def parse_titles(body: bytes, limits: ServiceLimits) -> UploadedTitles:
    """Return the titles of a body; see `parse_title`."""
    found = _validate(TitleBatch, body).titles
    if len(found) > limits.max_titles:
        raise RefusedRequestError(
            413, "too_many", f"A request has {limits.max_titles:,} titles at most, and this has {len(found):,}.",
            "Send them in several requests.",
        )  # fmt: skip
    titles = [each if isinstance(each, str) else each.title for each in found]
    return _check_lengths(
        UploadedTitles(titles, [None if isinstance(each, str) else each.id for each in found]), limits
    )


_KINDS = frozenset({"TitleUpload", "constrained-str", "constrained-int"})
"""Names that pydantic adds to the place of a fault, where a value may be of several kinds."""


def _refuse_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object; readers differ in which value counts where a name stands twice."""
    held = dict(pairs)
    if len(held) < len(pairs):
        name = next(name for nth, (name, _) in enumerate(pairs) if name in dict(pairs[:nth]))
        raise RefusedRequestError(
            422, "form", f"The body names '{escape_terminal(name, 100)}' twice.", "Name each field once."
        )
    return held


def _validate(form: type[BodyT], body: bytes) -> BodyT:
    try:
        found = form.model_validate_json(body)
        json.loads(body, object_pairs_hook=_refuse_twice)
        return found
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"] if part not in _KINDS)
        where = f" at '{escape_terminal(place, 100)}'" if place else ""
        raise RefusedRequestError(
            422, "form", f"The body has another form{where}: {escape_terminal(first['msg'], 200)}.",
            "See /openapi.json for the form.",
        ) from None  # fmt: skip


def _check_lengths(found: UploadedTitles, limits: ServiceLimits) -> UploadedTitles:
    for nth, title in enumerate(found.titles):
        if len(title) > limits.max_title:
            raise RefusedRequestError(
                422, "long_title",
                f"A title has {limits.max_title:,} characters at most, and title {nth} has {len(title):,}.",
                "It was not judged. Shorten it, or have a person look.",
            )  # fmt: skip
    return found
