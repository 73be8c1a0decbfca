"""Hostile text made harmless: in prompts, on terminals, in CSV and in HTML. The one place that does it.

Titles, labels, file names, messages of servers and specs of strangers may hold anything. What is shown of them passes
through one of these functions:

=====================  ============================================================================
`escape_terminal`      what can't be seen stands as its code, such as `<U+202E>`
`escape_lines`         the same for text of several lines
`escape_html`          the same, and no markup
`escape_csv`           no cell is a formula of a spreadsheet, and nothing steers a terminal
`restore_csv`          the text back from such a cell
`replace_controls`     a text as such a cell gives it back
`quote_for_prompt`     text between double quotes of a prompt, in one line
`quote_json`           text as a JSON string of ASCII in a prompt, without control tokens
=====================  ============================================================================

`count_things`, for numbers in messages, stands here as well.

What can't be seen is shown even where honest scripts need it. Joiners (U+200C, U+200D) of Persian, of Indian scripts
and of emoji, and variation selectors (U+FE0F), stand as codes: a reviewer should see that they are there. Characters
that are newer than the Unicode tables of this Python stand as codes too. Data is not changed: this is for showing.
"""

import html
import json
import re
import unicodedata

MAX_FRAGMENT_LENGTH = 200
"""Characters kept of a fragment, and of a title shown as its example."""
MAX_QUOTED_LENGTH = 300
"""Most characters of a title that reach a prompt."""
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""A run of control characters and line breaks."""

_HALF_SURROGATE = re.compile("[\ud800-\udfff]")
_DEFAULT_IGNORABLE = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    r"\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Unicode's Default_Ignorable_Code_Point, which reserves room for those to come: no newer table is needed."""
_BLANK = r"\u2800\ufffc\U00013441\U00013442\U00016fe4\U0001d159"
"""Letters and signs that are drawn as nothing: Braille's blank, an object's place, fillers and an empty note."""
_UNSEEN = re.compile(f"[{_DEFAULT_IGNORABLE}{_BLANK}]")
_TERMINAL_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_FORMULA_START = re.compile(
    r"""
    (?: \A (?= '*[\t\r\n] )
      | (?: \A | (?<=[;\t\r\n]) )
        (?= (?: [^\S\t\r\n] | ['"\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff] )* [=+\-@＝＋－＠﹢﹣﹦﹫−] )
    )""",
    re.VERBOSE,
)
"""Where a cell begins that a spreadsheet may take for a formula: at the start, and where one may split a text."""
_ESCAPED_START = re.compile(
    r"""
    (?: \A ' (?= '*[\t\r\n] )
      | (?: \A | (?<=[;\t\r\n]) ) '
        (?= (?: [^\S\t\r\n] | ['"\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff] )* [=+\-@＝＋－＠﹢﹣﹦﹫−] )
    )""",
    re.VERBOSE,
)
"""The apostrophe that was put there."""


def escape_terminal(text: str, limit: int | None = 60) -> str:
    """Return a text in which everything can be seen: what can't stands as its code, such as `<U+202E>`.

    Codes stand for control characters (so that ANSI and OSC sequences do nothing), line breaks, characters that change
    the direction of text, half surrogates, private and unassigned characters, spaces other than U+0020, letters that
    are drawn as nothing, all of Unicode's default-ignorable code points, and white space alone.

    Args:
        text: Any text.
        limit: Most characters of the text that are shown, a code being one; `None` shows all.

    Returns:
        Text in one line, cut with `…`. It may hold the markup of libraries: give it to rich as `Text`.
    """
    shown, end = (text, "") if limit is None or len(text) <= limit else (text[: limit - 1], "…")
    blank = shown.isspace()  # spaces are seen between words, and not alone
    if shown.isprintable() and not blank and not _UNSEEN.search(shown):
        return shown + end
    return "".join(f"<U+{ord(letter):04X}>" if blank or _is_unseen(letter) else letter for letter in shown) + end


def count_things(number: int, thing: str, things: str = "") -> str:
    """Return a number and what it counts, in the singular or plural, such as `1 row` or `2,000 rows`.

    Args:
        number: How many.
        thing: The word for one.
        things: The word for several; with an `s` by default.
    """
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def escape_lines(text: str) -> str:
    """Return lines in which everything can be seen, as `escape_terminal` has it; line breaks and blank lines stay."""
    if text.isprintable() and not _UNSEEN.search(text):
        return text
    return "".join(f"<U+{ord(letter):04X}>" if letter != "\n" and _is_unseen(letter) else letter for letter in text)


def _is_unseen(letter: str) -> bool:
    return not letter.isprintable() or _UNSEEN.match(letter) is not None


def escape_html(text: str, limit: int | None = None) -> str:
    """Return a text for an HTML element or a quoted attribute; what can't be seen stands as its code.

    Args:
        text: Any text.
        limit: Most characters of the text that are shown; `None` shows all.
    """
    return html.escape(escape_terminal(text, limit))


def escape_csv(text: str) -> str:
    """Return a text as a cell of a CSV file that is no formula to any spreadsheet; the caller quotes the cell.

    An apostrophe stands before what may be taken for a formula, which begins with `=`, `+`, `-` or `@` (also full-width
    or small, also behind spaces and quotes), at the start of the cell and behind each `;`, tab and line break in it:
    European spreadsheets split at `;`. One stands as well before a tab or line break that the cell begins with. Taking
    one apostrophe away in each of these places gives the text back.

    Control characters other than tabs and line breaks, and half surrogates, become U+FFFD, so that a terminal may show
    the file. All other text stays as it is, for a title must be found again by what it is.
    """
    if text[:1].isalnum() and text.isascii() and text.isprintable() and ";" not in text:
        return text  # as most titles are
    return _FORMULA_START.sub("'", replace_controls(text))


def restore_csv(cell: str) -> str:
    """Return the text that `escape_csv` made a cell of; what it replaced by U+FFFD stays so.

    Args:
        cell: The cell, without the quotes of the file.
    """
    places = {found.start() for found in _FORMULA_START.finditer(cell) if cell.startswith("'", found.start())}
    return "".join(letter for at, letter in enumerate(cell) if at not in places) if places else cell


def unescape_csv(text: str) -> str:
    """Return a text as it was before `escape_csv`; control characters stay what they became."""
    return _ESCAPED_START.sub("", text)


def replace_controls(text: str) -> str:
    """Return a text as it is read back from CSV: U+FFFD stands for control characters and half surrogates.

    Tabs and line breaks stay. No character more or less: places in the text are the same.
    """
    return _TERMINAL_CONTROL.sub("\N{REPLACEMENT CHARACTER}", replace_surrogates(text))


def replace_surrogates(text: str) -> str:
    """Return a text with U+FFFD for each half surrogate, which is no text; JSON and file names can bring one."""
    return text if text.isascii() else _HALF_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def normalize_span(span: str) -> str:
    """Return a span as it is compared with others: NFKC, case-folded, single spaces; white space alone stays."""
    span = span[:MAX_FRAGMENT_LENGTH]
    return " ".join(unicodedata.normalize("NFKC", span).casefold().split())[:MAX_FRAGMENT_LENGTH] or span


def quote_for_prompt(text: str) -> str:
    """Return a text as it stands between double quotes in a prompt.

    Double quotes become single ones and line breaks and control characters become spaces, so that a title can't end
    its quotation or its line; it is cut after 300 characters. Everything else, such as zero-width characters, stays:
    the model should see what the catalogue holds.
    """
    whole = replace_surrogates(text[:MAX_QUOTED_LENGTH])
    return CONTROL_CHARACTERS.sub(" ", whole).replace('"', "'").strip()


def quote_json(text: str) -> str:
    r"""Return a text as a JSON string of ASCII characters, with quotes, without `<` and `[`.

    They stand as `\u003c` and `\u005b`, so that no server that looks for control tokens such as `<|im_start|>` or
    `[INST]` in what it is sent finds any.
    """
    return json.dumps(text).replace("<", "\\u003c").replace("[", "\\u005b")
