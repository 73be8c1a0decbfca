"""A stranger's tokenizer, checked before titles are given to it: a small file may make it work for years.

`tokenizer.json` holds regular expressions that backtrack, replacements that double a text at each step, and templates
that add tokens. Nothing interrupts the library while it works. So expressions whose time grows exponentially are
refused by their form, and everything else is tried first: a process of its own, with limits on its time and memory,
reads texts that are made from the expressions themselves.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, cast

from cowbird.files import hash_file

PROBE_SECONDS = 60
"""Processor seconds that loading a tokenizer and reading all probes may take; a large vocabulary takes five."""
PROBE_WALL_SECONDS = 300
"""Seconds on a busy machine."""
PROBE_MEMORY_BYTES = 2 << 30
"""Address space of the process that reads probes."""
PROBE_CHARACTERS = 2000
"""Length of a probe."""
MAX_PATTERN_LENGTH, MAX_PATTERNS = 4000, 64
"""Longest expression, and most expressions and replaced texts."""
MAX_GROWTH = 64.0
"""By how much replacements may lengthen a text, all together."""
CONTROL_TOKEN = re.compile(r"[\s\u2581]*(<.+>|\[.+\]|\|.+\|)[\s\u2581]*", re.DOTALL)
"""What a control token looks like."""
_UNBOUNDED = re.compile(r"\*|\+|\{\d*,\}")
_FIXED = re.compile(r"\{\d+\}")
_QUANTIFIER = re.compile(r"(\*|\+|\?|\{\d+\}|\{\d*,\d*\})(\+|\?)?")
_SKIPPED = re.compile(r"\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]", re.DOTALL)
_RECURSION = re.compile(r"\\[1-9]|\\[kg]<|\(\?[R&(0-9]|\(\?[^)]*~")
_PUMPS = (
    "a",
    "A",
    "0",
    " ",
    "-",
    "\n",
    "\t",
    "'",
    "\u00e9",
    "\u6f22",
    "\u0301",
    "\U0001f600",
    "aA",
    "a0",
    "a ",
    "a-",
    "\r\n",
)
_checked: dict[str, str] = {}
"""What was found out about tokenizers in this process, by the hashes of their files."""
_PROGRAM = """
import json, sys
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1])
for text in json.load(sys.stdin):
    found = tokenizer.encode(text)
    if len(found.ids) > 8 * len(text.encode()) + 64:
        sys.exit("a text of %d characters becomes %d tokens" % (len(text), len(found.ids)))
"""


def check_tokenizer(path: Path) -> str:
    """Return why a tokenizer can't be used; empty if nothing speaks against it.

    Args:
        path: A `tokenizer.json`. A file with the same bytes is checked once in a process.
    """
    key = hash_file(path)
    if key not in _checked:
        _checked[key] = _check_file(path)
    return _checked[key]


def _check_file(path: Path) -> str:
    try:
        held: Any = json.loads(path.read_bytes())
        texts = list(
            _list_patterns([held.get(part) for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder")])
        )
    except (ValueError, RecursionError, AttributeError):
        return "its tokenizer.json is not that of a tokenizer"
    if len(texts) > MAX_PATTERNS:
        return f"its tokenizer.json has {len(texts)} patterns, and at most {MAX_PATTERNS} are read"
    for kind, text in texts:
        if len(text) > MAX_PATTERN_LENGTH:
            return f"its tokenizer.json has a pattern of {len(text):,} characters"
        if kind == "Regex" and is_explosive(text):
            return "its tokenizer.json has a pattern that may take years to read a title"
    growth = prod(_list_growth(held.get("normalizer")))
    if growth > MAX_GROWTH:
        return f"its tokenizer.json has replacements that make a text up to {growth:.3g} times as long"
    return _try_tokenizer(path, _make_probes([text for _, text in texts]))


def _list_patterns(held: Any) -> Iterator[tuple[str, str]]:
    """Yield the expressions (`Regex`) and texts (`String`) that parts of a tokenizer look for."""
    if isinstance(held, dict):
        for key, value in cast("dict[str, Any]", held).items():
            if key in ("Regex", "String") and isinstance(value, str):
                yield key, value
            else:
                yield from _list_patterns(value)
    elif isinstance(held, list):
        for value in cast("list[Any]", held):
            yield from _list_patterns(value)


def _list_growth(held: Any) -> Iterator[float]:
    """Yield by how much each replacement of a normalizer may lengthen a text."""
    if isinstance(held, dict):
        part = cast("dict[str, Any]", held)
        if isinstance(part.get("content"), str) and isinstance(part.get("pattern"), dict):
            replaced = part["pattern"].get("String")
            yield max(1.0, len(part["content"]) / max(1, len(replaced) if isinstance(replaced, str) else 1))
        for value in part.values():
            yield from _list_growth(value)
    elif isinstance(held, list):
        for value in cast("list[Any]", held):
            yield from _list_growth(value)


def is_explosive(pattern: str) -> bool:
    """Tell whether the time of a regular expression may grow exponentially with the text.

    That takes a group that is repeated without end and that itself matches texts of several lengths, by repetitions or
    alternatives; or a reference back. All such groups are refused, the harmless ones too. Repetitions that give nothing
    back (`++`) are none.
    """
    if _RECURSION.search(pattern):
        return True
    open_groups = [False]
    at, closed = 0, False  # whether a group that may explode when it is repeated was closed just before
    while at < len(pattern):
        quantifier = _QUANTIFIER.match(pattern, at)
        if quantifier is not None:
            possessive = quantifier[2] == "+"
            if closed and _UNBOUNDED.fullmatch(quantifier[1]) and not possessive:
                return True
            open_groups[-1] |= not possessive and not _FIXED.fullmatch(quantifier[1])
            at, closed = quantifier.end(), False
            continue
        skipped = _SKIPPED.match(pattern, at)
        closed = False
        if skipped is not None:
            at = skipped.end()
            continue
        if pattern[at] == "(":
            open_groups.append(False)
        elif pattern[at] == "|":
            open_groups[-1] = True
        elif pattern[at] == ")" and len(open_groups) > 1:
            closed = open_groups.pop()
            open_groups[-1] |= closed and len(open_groups) > 1
        at += 1
    return False


def _make_probes(patterns: list[str]) -> list[str]:
    """Return texts that make a tokenizer work hard: what its patterns name, over and over, and an end that fits not."""
    letters = sorted({letter for text in patterns for letter in text if letter.isprintable()})[:200]
    names = [text for text in patterns if 0 < len(text) <= 64]
    pumps = dict.fromkeys([*_PUMPS, *letters, *names])
    probes = [(pump * PROBE_CHARACTERS)[:PROBE_CHARACTERS] + "\u0001!" for pump in pumps]
    return ["", "a", *probes]


def _try_tokenizer(path: Path, probes: list[str]) -> str:
    """Have a process with limits load a tokenizer and read some texts; return what went wrong, if anything."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _LIMITS + _PROGRAM, str(path)],
            input=json.dumps(probes),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"its tokenizer takes more than {PROBE_WALL_SECONDS} s for texts of {PROBE_CHARACTERS:,} characters"
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return (
            f"its tokenizer takes more than {PROBE_SECONDS} s, or too much memory, for {PROBE_CHARACTERS:,} characters"
        )
    reason = " ".join((done.stderr.strip().splitlines() or ["it gave no reason"])[-1][:200].split())
    return f"its tokenizer.json can't be used: {reason}"


_LIMITS = f"""
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, ({PROBE_SECONDS}, {PROBE_SECONDS}))
    resource.setrlimit(resource.RLIMIT_AS, ({PROBE_MEMORY_BYTES}, {PROBE_MEMORY_BYTES}))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
"""


def make_control_tokens_special(tokenizer: Any) -> None:
    """Make the tokens special that look like control tokens, of a tokenizer of the library below transformers.

    Where special tokens are encoded as text, a control token that is written in a title then does not become one.
    """
    added = tokenizer.get_added_tokens_decoder().values()
    tokenizer.add_special_tokens(
        [token for token in added if not token.special and CONTROL_TOKEN.fullmatch(token.content)]
    )
