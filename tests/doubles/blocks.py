"""Code blocks of a Markdown page, as tests run them."""

import re
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]
_FENCE = re.compile(
    r"^(?P<fence>```+|~~~+)[ \t]*(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ \t]*$", re.DOTALL | re.MULTILINE
)


class Block(NamedTuple):
    """One fenced block."""

    language: str
    """First word after the fence, such as `python`, `console` or `{note}`; empty if there is none."""
    text: str
    """What stands between the fences."""
    line: int
    """Line of the page on which the text begins, from 1."""


def list_blocks(page, *languages):
    """Return the blocks of a page in order: all, or those in some languages.

    Args:
        page: Path of the page, absolute or from the root of the repository.
        languages: Such as `python`.
    """
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        language = (match["info"].split() or [""])[0]
        if not languages or language in languages:
            found.append(Block(language, match["text"], text.count("\n", 0, match.start("text")) + 1))
    return found


def run_python_blocks(page, namespace=None):
    """Run all `python` blocks of a page one after another, as if they were one script; return its names.

    An error names the page and the line in it. The current folder is the caller's affair.
    """
    names = {"__name__": "__main__"} if namespace is None else namespace
    for block in list_blocks(page, "python"):
        code = compile("\n" * (block.line - 1) + block.text, str(REPOSITORY / page), "exec")
        exec(code, names)
    return names
