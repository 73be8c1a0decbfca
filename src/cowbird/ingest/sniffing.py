"""Which layout a delimited file has, from its beginning and from options that say so.

Layouts are tried on the first lines. The usual one (RFC 4180) is kept unless another one reads strictly more rows, so
that no title in a well-formed file changes how the others are read. So it is with line ends: a CR alone ends a line
only in a file without LF, or where rows can't be read otherwise.
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from cowbird.errors import UserError
from cowbird.ingest.blobs import Blob
from cowbird.ingest.delimited import refuse_binary, refuse_marked, split_header
from cowbird.ingest.encodings import UTF8, normalize_encoding, recode, sniff_encoding
from cowbird.ingest.layout import TextLayout
from cowbird.ingest.options import BACKSLASH_QUOTE, NO_QUOTE, TEXT_OPTIONS, ReadOptions
from cowbird.ingest.records import DelimitedRecords

SAMPLE_BYTES = 1 << 20
"""Bytes of a file that decide its encoding."""
SAMPLE_LINES = 10_000
"""Lines of a file that decide its layout."""
SEPARATORS = (",", "\t", ";", "|")
"""What may stand between columns."""
MAX_PREAMBLE_LINES = 20
"""Lines before the header at most, where nobody says in which line it stands."""

_SEPARATOR_LINE = re.compile(rb"sep=(.)\s*")
_TYPED = re.compile(r"[^:]+:(?:token|token_seq|float|float_seq)")


@dataclass(frozen=True, slots=True)
class _Trial:
    """How well a layout reads some lines."""

    bad: int
    """Rows that can't be read."""
    trailing: int
    """Rows with one empty cell too many; they are not among the bad ones."""
    broken: int
    """Rows with quotes that are malformed or never closed."""
    rows: int
    """All rows."""


def sniff_layout(blob: Blob, options: ReadOptions, tabs: bool = False, atomic: bool = False) -> TextLayout:
    """Return the layout of a delimited file.

    Args:
        blob: The file.
        options: What is known of it.
        tabs: Whether its name says that tabs separate columns.
        atomic: Whether its name says that it is one of RecBole's files, which have no quotes.

    Raises:
        UserError: If it is empty or no text, or its encoding can't be told.
    """
    options.refuse_others(blob.name, "a text file", *TEXT_OPTIONS)
    with blob.open_stream() as stream:
        raw = stream.read(SAMPLE_BYTES)
    refuse_marked(raw, blob.name)  # whose zeros may look like those of UTF-16
    encoding = normalize_encoding(options.encoding or sniff_encoding(raw, len(raw) < SAMPLE_BYTES, blob.name))
    lines, carriage = _read_sample(recode(blob, encoding), encoding)
    form = TextLayout(encoding=encoding, carriage=carriage, quoted=not atomic)
    layout = _find_layout(lines, form, options, tabs)
    if any(b"\r" in line.removesuffix(b"\r") for line in lines):
        cut = [part for line in lines for part in line.removesuffix(b"\r").split(b"\r")]
        other = _find_layout(cut, replace(form, carriage=True), options, tabs)
        usual, mixed = (_try_layout(*each, most=len(cut)) for each in ((lines, layout), (cut, other)))
        if mixed.bad < usual.bad and mixed.rows - mixed.bad > usual.rows - usual.bad:
            lines, layout = cut, other
    if options.header_row == 0:
        record = next(_read_records(lines, layout), "")
        if isinstance(record, str):
            raise UserError(f"The first row of {blob.name} {record or 'is missing'}.", "Check the file.")
        names = tuple(f"column_{nth}" for nth in range(1, len(record) + 1))
        return replace(layout, names=names)
    if layout.skip_lines >= len(lines):
        raise UserError(f"{blob.name} should begin with column names, and there are none.", "Check the file.")
    names = split_header(lines[layout.skip_lines], layout, blob.name)
    typed = len(names) > 0 and all(_TYPED.fullmatch(name.strip()) for name in names)
    return replace(layout, typed=typed)


def _find_layout(lines: list[bytes], form: TextLayout, options: ReadOptions, tabs: bool) -> TextLayout:
    """Return a layout with the separator, the header's line and the quotes of some lines."""
    skipped, separator = _find_separator(lines, options, tabs)
    return _choose_quotes(lines, replace(form, separator=separator, skip_lines=skipped), options)


def _read_sample(blob: Blob, encoding: str) -> tuple[list[bytes], bool]:
    """Return the first lines of a file in UTF-8, and whether its lines end with CR alone."""
    with blob.open_stream() as stream:
        sample = stream.read(SAMPLE_BYTES)
    if encoding == UTF8:
        refuse_binary(sample, blob.name)
    if not sample.strip():
        raise UserError(f"{blob.name} should hold rows of text, and it is empty.", "Check the file.")
    carriage = b"\n" not in sample and b"\r" in sample
    if carriage:
        sample = sample.replace(b"\r", b"\n")
    lines = sample.removeprefix(codecs.BOM_UTF8).split(b"\n")
    whole = len(sample) < SAMPLE_BYTES
    return lines[:SAMPLE_LINES] if whole or len(lines) == 1 else lines[:-1][:SAMPLE_LINES], carriage


def _find_separator(lines: list[bytes], options: ReadOptions, tabs: bool) -> tuple[int, str]:
    """Return how many lines stand before the header (or before the first row), and the separator."""
    first = next((nth for nth, line in enumerate(lines) if line.strip()), 0)
    found = _SEPARATOR_LINE.fullmatch(lines[first])
    told = found[1].decode("latin-1") if found and found[1] < b"\x80" else None
    if options.header_row:
        if options.header_row > len(lines):
            raise UserError(
                f"--header-row names line {options.header_row}, and there are {len(lines)} in the file's beginning.",
                "Name the line of the column names.",
            )
        start = options.header_row - 1
    else:
        start = first + 1 if told else first
        while start + 1 < len(lines) and not lines[start].strip():
            start += 1
    separator = options.separator or told or _count_separators(lines[start], tabs)
    if options.header_row is None and not told and separator not in lines[start].decode("latin-1"):
        start, separator = _skip_preamble(lines, start, options.separator, separator)
    return start, separator


def _count_separators(line: bytes, tabs: bool) -> str:
    """Return the separator that a line uses most."""
    if tabs and b"\t" in line:
        return "\t"
    best = max(SEPARATORS, key=lambda each: line.count(each.encode()))
    return best if best.encode() in line else "\t" if tabs else ","


def _skip_preamble(lines: Sequence[bytes], start: int, named: str | None, separator: str) -> tuple[int, str]:
    """Return where the header stands behind lines such as a report's title, which are no rows.

    They are followed by a blank line, and from there on all lines have the same number of columns, two or more.
    """
    end = min(start + MAX_PREAMBLE_LINES, len(lines))
    blank = next((nth for nth in range(start + 1, end) if not lines[nth].strip()), None)
    if blank is None:
        return start, separator
    rest = [nth for nth in range(blank, len(lines)) if lines[nth].strip()]
    if len(rest) < 2:
        return start, separator
    chosen = named or _count_separators(lines[rest[0]], False)
    counts = {lines[nth].count(chosen.encode()) for nth in rest}
    return (rest[0], chosen) if len(counts) == 1 and counts != {0} else (start, separator)


def _choose_quotes(lines: list[bytes], layout: TextLayout, options: ReadOptions) -> TextLayout:
    """Return the layout with the way to quote that reads the most rows."""
    if options.quote == NO_QUOTE or not layout.quoted:
        layouts = [replace(layout, quoted=False)]
    elif options.quote == BACKSLASH_QUOTE:
        layouts = [replace(layout, escaped=True)]
    elif options.quote is not None:
        layouts = [replace(layout, quote=options.quote)]
    else:
        layouts = [
            layout,
            replace(layout, spaced=True),
            replace(layout, escaped=True),
            replace(layout, escaped=True, spaced=True),
        ]
        if layout.separator == "\t":  # whoever separates by tabs may not quote at all
            layouts.append(replace(layout, quoted=False))
    usual = found = _try_layout(lines, layouts[0])
    best = layouts[0]
    for each in layouts[1:] if usual.bad else ():
        trial = _try_layout(lines, each)
        if trial.bad < found.bad and (each.quoted or _are_quotes_letters(lines, layout.separator, usual)):
            best, found = each, trial
    return replace(best, trailing=2 * found.trailing > found.rows)


def _are_quotes_letters(lines: list[bytes], separator: str, usual: _Trial) -> bool:
    """Tell whether cells that begin with a quote are far more often broken than wrapped, if quotes wrap cells."""
    sign = separator.encode() + b'"'
    begun = sum(line.startswith(b'"') or sign in line for line in lines)
    return usual.broken > 2 * (begun - usual.broken)


def _read_records(lines: list[bytes], layout: TextLayout) -> Iterator[list[bytes] | str]:
    rows = iter(lines[layout.skip_lines :])
    return iter(DelimitedRecords(rows, layout.separator.encode(), layout.quote_form))


def _try_layout(lines: list[bytes], layout: TextLayout, most: int = SAMPLE_LINES) -> _Trial:
    """Return how well a layout reads lines, of so many rows at most; the last row may be cut and does not count."""
    records = list(islice(_read_records(lines, layout), most))
    if not records or isinstance(records[0], str):
        return _Trial(len(records), 0, len(records), len(records))
    width, rest = len(records[0]), records[1:]
    trailing = sum(len(row) == width + 1 and not row[-1] for row in rest if not isinstance(row, str))
    broken = sum(isinstance(row, str) for row in rest)
    ragged = sum(len(row) != width for row in rest if not isinstance(row, str))
    return _Trial(broken + ragged - trailing, trailing, broken, len(rest))
