"""How files are to be read where sniffing is not to decide: options that hold for a block of work, in this thread."""

import codecs
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields

from cowbird.errors import UserError

NULL_TEXTS = ("NULL", "null", "\\N", "nan", "NaN", "None", "<NA>")
"""Texts that stand for a missing value, unless others are named."""
BACKSLASH_QUOTE, NO_QUOTE = "backslash", "none"
"""Words for ways to quote: `"` with a backslash before one inside, and not at all."""
TEXT_OPTIONS = ("encoding", "separator", "quote", "header_row")
"""Options about delimited text."""
JSON_OPTIONS = ("encoding", "json_path")
"""Options about JSON."""
_SEPARATOR_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a file is to be read; what is `None` is sniffed.

    Raises:
        UserError: If an encoding, a separator, a quote or a row can't be meant.
    """

    encoding: str | None = None
    """Encoding of text files, such as `cp1252`."""
    separator: str | None = None
    """What stands between columns of text files: one character, or `tab`."""
    quote: str | None = None
    """What wraps fields: one character (doubled inside a field), `backslash` or `none`."""
    header_row: int | None = None
    """Line of the column names, from 1; 0 if there are none, and columns are `column_1`, `column_2` …"""
    null: tuple[str, ...] | None = None
    """Texts that stand for a missing value, instead of `NULL_TEXTS`; an empty text alone for none."""
    json_path: str | None = None
    """Where in a JSON document the array of rows is, such as `data.items`."""
    table: str | None = None
    """Table of a database."""

    def __post_init__(self) -> None:
        if self.encoding is not None:
            _check_encoding(self.encoding)
        if self.separator is not None:
            named = _SEPARATOR_NAMES.get(self.separator, self.separator)
            if len(named) != 1 or not named.isascii() or named in '\r\n"\0':
                raise UserError(
                    f"A separator is one ASCII character, and '{self.separator}' is not one.",
                    "Such as --separator ';' or --separator tab.",
                )
            object.__setattr__(self, "separator", named)
        if self.quote is not None and self.quote not in (BACKSLASH_QUOTE, NO_QUOTE):
            if len(self.quote) != 1 or not self.quote.isascii() or self.quote in "\r\n\0\\":
                raise UserError(
                    f"A quote is one ASCII character, '{BACKSLASH_QUOTE}' or '{NO_QUOTE}', and not '{self.quote}'.",
                    f"Such as --quote {NO_QUOTE}.",
                )
            if self.quote == self.separator:
                raise UserError("The quote and the separator are the same character.", "Change one of them.")
        if self.header_row is not None and self.header_row < 0:
            raise UserError("A header stands in line 1 or later.", "0 says that there is none: --header-row 0.")

    @property
    def null_texts(self) -> frozenset[str]:
        """Texts that stand for a missing value."""
        return frozenset(NULL_TEXTS if self.null is None else (text for text in self.null if text))

    def select(self, kind: str) -> "ReadOptions":
        """Return the options that say something about a kind of file (`text`, `lines`, `json`), and no others."""
        known = {"text": TEXT_OPTIONS, "lines": JSON_OPTIONS, "json": JSON_OPTIONS}.get(kind, ("table",))
        return ReadOptions(**{name: getattr(self, name) for name in (*known, "null")})

    def refuse_others(self, file: str, kind: str, *used: str) -> None:
        """Refuse options that say nothing about a kind of file.

        Raises:
            UserError: If one is given that is not among `used`.
        """
        for field in fields(self):
            if getattr(self, field.name) is not None and field.name not in used and field.name != "null":
                option = "--" + field.name.replace("_", "-")
                raise UserError(f"{file} is {kind}, and {option} says nothing about it.", f"Leave out {option}.")


def _check_encoding(name: str) -> None:
    hint = "Such as --encoding cp1252, utf-16, shift_jis or gb18030."
    try:
        "".encode(name)
        if codecs.lookup(name).name not in ("idna", "punycode", "undefined"):
            return
    except (LookupError, ValueError, UnicodeError):
        pass
    raise UserError(f"'{name}' is no encoding of text.", hint)


_options: ContextVar[ReadOptions | None] = ContextVar("options", default=None)


@contextmanager
def use_options(options: ReadOptions) -> Generator[None]:
    """Read files so in a block, in this thread."""
    token = _options.set(options)
    try:
        yield
    finally:
        _options.reset(token)


@contextmanager
def replace_option_hints(advice: str) -> Generator[None]:
    """Give other advice where a command takes none of these options, and an error names one of them.

    Args:
        advice: What to do instead.

    Raises:
        UserError: The error with that advice.
    """
    named = ["--" + field.name.replace("_", "-") for field in fields(ReadOptions)]
    try:
        yield
    except UserError as error:
        if any(option in error.hint for option in named):
            raise type(error)(error.message, advice) from None
        raise


def get_options() -> ReadOptions:
    """Return how files are read here."""
    return _options.get() or ReadOptions()
