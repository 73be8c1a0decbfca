"""Files that tell when they are damaged: tensors as safetensors, records as sealed JSON. Nothing is ever unpickled.

Both are written under a temporary name and renamed, so a file is whole or not there. A sealed JSON file is
`{"sha256": …, "content": …}`: the SHA-256 is of the content with sorted keys, so the file may be formatted anew, but
no value in it may change. A seal finds damage and edits. It keeps out no attacker, for anybody can compute it.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from cowbird.errors import UserError
from cowbird.faults import raise_outage
from cowbird.files import MAX_RECORD_BYTES, hash_file, open_plain_file, read_plain_file, replace_atomically, write_text

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# torch is imported by what needs it: whoever reads a record does not wait for it.

_CUT = re.compile(r"incomplete metadata|invalid header length|header too small", re.IGNORECASE)
"""What safetensors says of a file that may lack its end."""
_HIDDEN_INTERRUPT = "could not determine the shape of object type 'torch.storage"
"""How the error begins that torch puts in the place of an interrupt that comes while it asks a storage for its size."""


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]", header: Mapping[str, str] | None = None) -> str:
    """Write tensors atomically as safetensors; the same tensors and the same header make the same bytes.

    Args:
        path: The file.
        tensors: What to write; moved to the CPU.
        header: Text kept in the file's header.

    Returns:
        The file's SHA-256.

    Raises:
        UserError: If it can't be written.
    """
    import safetensors.torch  # noqa: PLC0415

    host = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replace_atomically(path) as partial:
        safetensors.torch.save_file(host, partial, dict(header or {}))
        if header and len(header) > 1:
            _sort_header(partial)
        return hash_file(partial)


def _sort_header(path: Path) -> None:
    """Put the text of a safetensors header in the order of its names: the library has another order each time."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        names: dict[str, Any] = json.loads(file.read(size))
        names["__metadata__"] = dict(sorted(names["__metadata__"].items()))
        text = json.dumps(names, ensure_ascii=False, separators=(",", ":")).encode().ljust(size)
        if len(text) != size:
            raise ValueError(f"a header of {size} bytes is written anew in {len(text)}")
        file.seek(8)
        file.write(text)


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Read a safetensors file whole: tensors on the CPU, and the header's text.

    Raises:
        UserError: If the file is missing or not whole.
        OutageError: If it can't be read for a passing fault.
        KeyboardInterrupt: If there was one; torch makes a ValueError of some.
    """
    return _read_file(path, "pt")


def read_arrays(path: Path) -> "dict[str, NDArray[Any]]":
    """Read a safetensors file whole, as arrays; of small files, that takes half the time of `read_tensors`.

    Raises:
        UserError: If the file is missing or not whole.
        OutageError: If it can't be read for a passing fault.
        TypeError: If a tensor in it is no array.
    """
    return _read_file(path, "np")[0]


def _read_file(path: Path, framework: str) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        with open_plain_file(path) as file:
            trouble = _find_header_trouble(file)
        opened: Any = safe_open(path, framework=framework)
        with opened as reader:
            names: list[str] = list(reader.keys())
            if trouble:
                raise UserError(f"'{path}' {trouble}.", "Ask for a file that the safetensors library wrote.")
            return {name: reader.get_tensor(name) for name in names}, dict(reader.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise_outage(error, f"'{path}' can't be read")
        hint = "Was it cut short?" if _CUT.search(str(error)) else "Ask for an undamaged file."
        raise UserError(f"'{path}' is not a readable safetensors file: {error}.", hint) from None
    except ValueError as error:
        if str(error).startswith(_HIDDEN_INTERRUPT):
            raise KeyboardInterrupt from None
        raise


def _find_header_trouble(file: IO[bytes]) -> str:
    """Return what is wrong with a safetensors header that the library itself lets pass; empty if nothing is."""
    size = int.from_bytes(file.read(8), "little")
    if size > MAX_RECORD_BYTES:
        return f"has a header of {size:,} bytes, and {MAX_RECORD_BYTES:,} are read at most"
    doubled: list[str] = []

    def hold(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        held = dict(pairs)
        if len(held) < len(pairs):
            doubled.extend(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        return held

    try:
        json.loads(file.read(size), object_pairs_hook=hold)
    except (ValueError, RecursionError):  # told by who reads the file
        return ""
    return f"names {doubled[0][:60]!r} twice in its header, and readers differ in which one counts" if doubled else ""


def write_sealed_json(path: Path, content: Any) -> str:
    """Write a record atomically as JSON, with the SHA-256 of its content.

    Args:
        path: The file.
        content: What JSON can hold: objects, lists, text, finite numbers, booleans and `None`.

    Returns:
        The SHA-256.

    Raises:
        UserError: If it can't be written.
        ValueError: If a number is not finite: JSON has none such, and a threshold of NaN flags nothing.
        TypeError: If JSON can't hold the content.
    """
    held: Any = json.loads(json.dumps(content, allow_nan=False))
    seal = _hash_content(held)
    write_text(path, json.dumps({"sha256": seal, "content": held}, indent=1) + "\n")
    return seal


def read_sealed_json(path: Path, hint: str = "Make it anew, or restore it from a copy.") -> Any:
    """Read a record that `write_sealed_json` wrote.

    Args:
        path: The file.
        hint: What to do if it is damaged.

    Returns:
        The content.

    Raises:
        UserError: If the file is missing, not such a file, or its content is not the one that was sealed.
    """
    record: Any
    held: Any
    try:
        record = json.loads(read_plain_file(path), parse_constant=_refuse_constant)
    except OSError as error:
        raise_outage(error, f"'{path}' can't be read")
        raise UserError(f"'{path}' can't be read: {error.strerror}.", hint) from None
    except (ValueError, RecursionError):
        raise UserError(f"'{path}' is damaged: it is not JSON.", hint) from None
    try:
        recorded, held = str(record["sha256"]), record["content"]
    except (KeyError, TypeError, IndexError):
        raise UserError(f"'{path}' is damaged: a SHA-256 and the content that it seals were expected.", hint) from None
    try:
        seal = _hash_content(held)
    except (ValueError, RecursionError):  # such as 1e999, which is read as infinite
        raise UserError(f"'{path}' is damaged: a number in it is not finite.", hint) from None
    if recorded != seal:
        raise UserError(f"'{path}' is damaged: the SHA-256 of its content is not the recorded one.", hint)
    return held


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _hash_content(content: Any) -> str:
    """Return the SHA-256 of what JSON holds; the order of keys and white space don't enter."""
    text = json.dumps(content, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
