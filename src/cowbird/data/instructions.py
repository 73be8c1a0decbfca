"""Questions that somebody else wrote: the files TALLRec was published with, and any of their form.

A file is a JSON list of objects, or JSON Lines, with the texts `instruction`, `input` and `output` (`Yes.` or `No.`);
other keys are passed over. Who wrote it is not known, so a row that can't be used is counted as skipped with its line,
and texts are handed on as they are: who makes prompts of them has to keep their structure
(`cowbird.victims.language.tallrec.from_instructions`).
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from cowbird.errors import UserError
from cowbird.ingest.blobs import from_file
from cowbird.ingest.skips import Skip, Skips

MAX_INSTRUCTION_BYTES = 1 << 30
"""Most bytes of a file, unpacked. It is held in memory whole, several times."""
_FIELDS = ("instruction", "input", "output")
_FORM = "a JSON list of objects, or one object a line, with the texts instruction, input and output"
_ANSWERS = {"yes": "Yes.", "yes.": "Yes.", "no": "No.", "no.": "No."}
_SPACE = re.compile(r"[ \t\r\n]*")


class Instruction(NamedTuple):
    """One question with its answer."""

    instruction: str
    """What the model is told to do, as written."""
    input: str
    """What it is asked about, as written."""
    output: str
    """`Yes.` or `No.`."""


class _Unusable(NamedTuple):
    """Stands where a row has nothing to use."""

    reason: str


_REPEATED = _Unusable("a key is there twice")


def read_instructions(path: Path) -> tuple[tuple[Instruction, ...], tuple[Skip, ...]]:
    """Read a file of written questions.

    Args:
        path: A JSON list or JSON Lines in UTF-8, with a byte order mark or without; unpacked if it ends in `.gz`. At
            most `MAX_INSTRUCTION_BYTES` bytes.

    Returns:
        The questions in order, and what was skipped and why, with line numbers.

    Raises:
        UserError: If the file is missing, damaged, too large, not UTF-8 or not of that form, or no row can be used.
    """
    try:
        blob = from_file(path)
    except OSError as error:  # a name that no file can have
        raise UserError(f"'{path}' can't be read: {error.strerror}.", "Check the path.") from None
    with blob.open_stream() as stream:
        data = stream.read(MAX_INSTRUCTION_BYTES + 1)
    if len(data) > MAX_INSTRUCTION_BYTES:
        raise UserError(f"{blob.name} holds more than {MAX_INSTRUCTION_BYTES >> 20:,} MiB.", "Split the file.")
    text = _decode_text(data, blob.name)
    begin = _skip_space(text, 0)
    if text[begin : begin + 1] not in ("[", "{"):
        raise UserError(f"{blob.name} should hold {_FORM}, and it does not.", "Check that this is the right file.")
    skips, found = Skips(), list[Instruction]()
    for line, value in _read_list(text, begin, blob.name) if text[begin] == "[" else _read_lines(text):
        row = _parse_row(value)
        if isinstance(row, Instruction):
            found.append(row)
        else:
            skips.add(blob.name, row.reason, [line])
    skipped = skips.list()
    if not found:
        why = f" Most rows failed: {skipped[0]}." if skipped else ""
        raise UserError(f"{blob.name} should hold {_FORM}, and none can be used.{why}", "Check the file.")
    return tuple(found), skipped


def _decode_text(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file} should be UTF-8 text, and line {line} is not.", "Save the file as UTF-8.") from None


def _make_decoder() -> json.JSONDecoder:
    """Return a decoder that leaves numbers out, NaN and endless ones too, and marks objects with a key twice."""

    def drop_number(text: str) -> None:
        return None

    def check_keys(pairs: list[tuple[str, Any]]) -> object:
        table = dict(pairs)
        return table if len(table) == len(pairs) else _REPEATED

    return json.JSONDecoder(
        object_pairs_hook=check_keys,
        parse_int=drop_number,
        parse_float=drop_number,
        parse_constant=drop_number,
        strict=False,
    )


def _skip_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _read_list(text: str, begin: int, file: str) -> Iterator[tuple[int, object]]:
    """Yield the values of a JSON list, with the lines that they begin on."""
    decoder, at, line, counted = _make_decoder(), begin + 1, 1, 0
    try:
        at = _skip_space(text, at)
        while text[at : at + 1] != "]":
            line += text.count("\n", counted, at)
            counted = at
            value, at = decoder.raw_decode(text, at)
            yield line, value
            at = _skip_space(text, at)
            if text[at : at + 1] not in (",", "]"):
                raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
            if text[at] == ",":
                at = _skip_space(text, at + 1)
        at = _skip_space(text, at + 1)
        if at < len(text):
            raise json.JSONDecodeError("Text behind the list", text, at)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} in line {text.count(chr(10), 0, error.pos) + 1}"
    except RecursionError:
        reason = f"nested too deeply in line {line}"
    else:
        return
    raise UserError(f"{file} is not JSON: {reason}.", "Is the file whole? Download it again.")


def _read_lines(text: str) -> Iterator[tuple[int, object]]:
    """Yield the values of JSON Lines, with their lines; empty lines are passed over."""
    decoder = _make_decoder()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, decoder.decode(line)
        except ValueError:
            yield number, _Unusable("is not JSON")
        except RecursionError:
            yield number, _Unusable("is nested too deeply")


def _parse_row(value: object) -> Instruction | _Unusable:
    if isinstance(value, _Unusable):
        return value
    if not isinstance(value, dict):
        return _Unusable("is not an object")
    row = cast("dict[str, object]", value)
    texts: list[str] = []
    for name in _FIELDS:
        text = row.get(name)
        if name not in row:
            return _Unusable(f"{name} is missing")
        if not isinstance(text, str):
            return _Unusable(f"{name} is not text")
        if not text.strip():
            return _Unusable(f"{name} is empty")
        texts.append(text)
    answer = _ANSWERS.get(texts[2].strip().lower())
    return _Unusable("output is neither Yes nor No") if answer is None else Instruction(texts[0], texts[1], answer)
