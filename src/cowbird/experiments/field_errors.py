"""What is wrong with fields, in words: what was expected and what was got, instead of what pydantic says."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

MAX_SHOWN_LENGTH = 60
"""Characters shown of a value that does not fit."""

_WHOLE, _NUMBER, _TEXT, _LIST, _TABLE = "a whole number", "a number", "text in quotes", "a list in [ ]", "a table"
_KINDS = {
    "int": _WHOLE,
    "float": _NUMBER,
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": _TEXT,
    "path": "a path in quotes",
    "list": _LIST,
    "tuple": _LIST,
    "dict": _TABLE,
    "model": _TABLE,
    "model_attributes": _TABLE,
}
"""What pydantic's kinds of values are in a spec, by how the names of its errors begin."""
_BOUNDS: dict[str, tuple[str, str]] = {
    "greater_than": ("gt", "more than {}"),
    "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "less than {}"),
    "less_than_equal": ("le", "{} or less"),
    "multiple_of": ("multiple_of", "a multiple of {}"),
    "literal_error": ("expected", "{}"),
    "enum": ("expected", "{}"),
    "string_pattern_mismatch": ("pattern", "text of the form {}"),
    "string_too_short": ("min_length", "text of {} characters or more"),
    "string_too_long": ("max_length", "text of {} characters at most"),
    "union_tag_invalid": ("expected_tags", "of a name that is known: {}"),
}
"""Errors that say what was expected: where, and in which words."""
_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "missing": lambda _: "is missing",
    "extra_forbidden": lambda _: "this key is not known",
    "union_tag_not_found": lambda _: "must be a table with a name",
    "too_short": lambda told: f"must have {told['min_length']} or more entries, and has {told['actual_length']}",
    "too_long": lambda told: f"must have {told['max_length']} entries at most",
}
"""Errors with words of their own."""


def explain_errors(error: ValidationError, names: Mapping[str, str] = MappingProxyType({})) -> str:
    """Say in one line what is wrong with fields, all problems at once.

    Args:
        error: What pydantic found.
        names: What the user calls a field, such as an option, where that is not its name.
    """
    return "; ".join(words for _, words in explain_each(error, names)) + "."


def explain_each(
    error: ValidationError, names: Mapping[str, str] = MappingProxyType({})
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield each problem with a few words; arguments as of `explain_errors`."""
    problems = error.errors(include_url=False)
    for problem in problems:
        # A list whose entries are wrong is also too short for pydantic; once is enough.
        if problem["type"] == "too_short" and any(
            p["loc"][:-1][: len(problem["loc"])] == problem["loc"] for p in problems
        ):
            continue
        place, words = ".".join(str(part) for part in problem["loc"]), explain_problem(problem)
        yield problem, f"{names.get(place, place)}: {words}" if place else words


def explain_problem(problem: Mapping[str, Any]) -> str:
    """Say what was expected of a field and what was got.

    Args:
        problem: One of `ValidationError.errors()`.
    """
    kind, told = str(problem["type"]), problem.get("ctx", {})
    if kind in _WORDS:
        return _WORDS[kind](told)
    expected = _KINDS.get(kind) or _KINDS.get(kind.rpartition("_")[0]) or _KINDS.get(kind.partition("_")[0])
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        expected = words.format(told[key])
    if expected is None:
        return str(problem["msg"]).removeprefix("Value error, ")
    return f"must be {expected}, not {_show_value(problem['input'])}"


def _show_value(value: object) -> str:
    """Return a value as a spec would have it, cut."""
    if isinstance(value, Mapping):
        return "a table"
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return shown if len(shown) <= MAX_SHOWN_LENGTH else f"{shown[: MAX_SHOWN_LENGTH - 1]}…"


def is_unknown_key(problem: Mapping[str, Any]) -> bool:
    """Tell whether a problem is a key that is not known."""
    return problem["type"] == "extra_forbidden"


def list_fields(model: type[BaseModel], problems: Iterable[Mapping[str, Any]]) -> str:
    """List the fields of the tables in which a key is not known, or of the whole if there is none."""
    found: dict[str, None] = {}
    for problem in problems:
        owners, place = [model], problem["loc"][:-1] if is_unknown_key(problem) else ()
        for part in place:
            inside = [
                m
                for owner in owners
                if part in owner.model_fields
                for m in _find_models(owner.model_fields[part].annotation)
            ]
            tagged = [
                m for m in owners if "name" in m.model_fields and part in get_args(m.model_fields["name"].annotation)
            ]
            owners = inside or tagged or owners
        title = f"Fields of {'.'.join(map(str, place))}" if place else "Fields"
        found[f"{title}: {', '.join(dict.fromkeys(name for owner in owners for name in owner.model_fields))}."] = None
    return " ".join(found)


def _find_models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models named somewhere in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _find_models(inner)]
