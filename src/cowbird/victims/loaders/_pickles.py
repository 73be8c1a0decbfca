"""Pickles read without running them: what stands in a checkpoint, as plain values and inert records.

A pickle is a program. Python's own reader imports what the program names and calls it; torch's `weights_only` reader
refuses a whole file for one class that it does not know, such as the configuration that RecBole keeps beside its
weights. This reader does neither: it imports nothing and calls nothing that a file names. It follows the opcodes that
`pickletools` lists and makes

- numbers, texts, lists, tuples, sets and dictionaries as they are,
- a `TensorRecord` where torch would build a tensor, a `StorageRecord` where it would load a storage,
- a `InertRecord` for everything else: its name, what it would have been called with, and its state.

`os.system` in a pickle is a record that nobody looks at. Keys of dictionaries are texts, numbers and records: others,
whose hashes a stranger could choose, are wrapped in a record.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard

from cowbird.errors import UserError

MAX_PICKLE_BYTES = 64 << 20
"""Longest pickle that is read."""
MAX_OPCODES = 10_000_000
"""Most opcodes that are followed, and most values that are copied."""
_MAX_KEY = 1 << 60
"""Integers up to here hash to themselves, so no two of them meet."""
_HINT = "A checkpoint that torch.save, RecBole, RePlay or RecTools wrote was expected. Was it cut short?"

_TENSOR_BUILDERS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_PARAMETER_BUILDERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_CONTAINERS: dict[str, Callable[[], Any]] = {
    "collections.OrderedDict": dict,
    "builtins.dict": dict,
    "builtins.list": list,
    "builtins.set": set,
    "__builtin__.dict": dict,
    "__builtin__.list": list,
    "__builtin__.set": set,
}
"""Names that stand for plain containers when they are called with nothing, or with a list of what they hold."""


def is_dict(value: Any) -> TypeGuard[dict[Any, Any]]:
    """Tell whether a value is a dictionary."""
    return isinstance(value, dict)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Tell whether a value is a list."""
    return isinstance(value, list)


def is_tuple(value: Any) -> TypeGuard[tuple[Any, ...]]:
    """Tell whether a value is a tuple."""
    return isinstance(value, tuple)


class Global:
    """A class or function that a pickle names; it is not imported.

    Args:
        name: Its dotted path.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


@dataclass(eq=False, slots=True)
class InertRecord:
    """An object of a class that is not imported."""

    name: str
    """Dotted path of the class or function."""
    args: tuple[Any, ...] = ()
    """What it would have been called with."""
    state: Any = None
    """What it would have been given as its state."""
    entries: dict[Any, Any] | None = None
    """Keys and values set on it, if it is like a dictionary."""
    elements: list[Any] | None = None
    """What was added to it, if it is like a list."""


@dataclass(frozen=True, eq=False, slots=True)
class StorageRecord:
    """A storage of numbers, which lies in another entry of the archive."""

    kind: str
    """Name of the storage's class, which gives the number format, such as `torch.FloatStorage`."""
    key: str
    """Name of the entry."""
    numbers: int
    """How many numbers it is said to hold."""


@dataclass(frozen=True, eq=False, slots=True)
class TensorRecord:
    """A tensor: a view of a storage. Nothing of it has been checked."""

    storage: StorageRecord
    """Where its numbers lie."""
    offset: Any
    """Its first number in the storage."""
    shape: Any
    """Its sizes."""
    stride: Any
    """Steps between numbers, one a dimension."""


def read_pickle(data: bytes, what: str) -> Any:
    """Read a pickle; nothing that it names is imported or called.

    Args:
        data: The pickle.
        what: What to call it in messages.

    Returns:
        Plain values, records and tensor records.

    Raises:
        UserError: If it is not a whole pickle, or too long.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise UserError(f"{what} is {len(data)} bytes long; at most {MAX_PICKLE_BYTES} are read.", _HINT)
    machine = _Machine(what)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
            if count >= MAX_OPCODES:
                raise UserError(f"{what} has more than {MAX_OPCODES} opcodes.", _HINT)
            machine.follow(opcode.name, argument)
        return machine.finish()
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, UnicodeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"{what} is not a whole pickle: {reason or type(error).__name__}.", _HINT) from None


class _Mark:
    """Where a group of values begins on the stack."""


_MARK = _Mark()
_PUSHES = frozenset(
    {
        *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
"""Opcodes that put their argument on the stack."""
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLE_SIZES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})


class _Machine:
    """The stack and the memo of a pickle that is followed."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0
        self.steps: dict[str, Callable[[Any], None]] = {
            name.removeprefix("_do_").upper(): getattr(self, name) for name in dir(self) if name.startswith("_do_")
        }

    def follow(self, name: str, argument: Any) -> None:
        """Follow one opcode."""
        if name in _PUSHES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLE_SIZES:
            size = _TUPLE_SIZES[name]
            if len(self.stack) < size:
                raise IndexError("values are missing")
            self.stack[-size:] = [tuple(self.stack[-size:])]
        elif name in self.steps:
            self.steps[name](argument)
        elif name not in _IGNORED:
            self._refuse(f"its opcode {name} is not one of a checkpoint")

    def finish(self) -> Any:
        """Return the one value that is left."""
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise ValueError("it ends with several values, or with none")
        return self.stack[0]

    def _refuse(self, reason: str) -> NoReturn:
        raise UserError(f"{self.what} can't be read: {reason}.", _HINT)

    def _pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("values are missing")
        return value

    def _pop_group(self) -> list[Any]:
        """Take what stands above the last mark, and the mark."""
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                group = self.stack[place + 1 :]
                del self.stack[place:]
                return group
        raise IndexError("a mark is missing")

    # Stack and memo

    def _do_mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def _do_pop(self, _: Any) -> None:
        self.stack.pop()

    def _do_pop_mark(self, _: Any) -> None:
        self._pop_group()

    def _do_dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _do_memoize(self, _: Any) -> None:
        self._do_put(len(self.memo))

    def _do_put(self, place: Any) -> None:
        if self.stack[-1] is _MARK:
            raise ValueError("a mark can't be remembered")
        self.memo[int(place)] = self.stack[-1]

    _do_binput = _do_long_binput = _do_put

    def _do_get(self, place: Any) -> None:
        self.stack.append(self.memo[int(place)])

    _do_binget = _do_long_binget = _do_get

    # Containers

    def _do_empty_list(self, _: Any) -> None:
        self.stack.append([])

    def _do_empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def _do_empty_set(self, _: Any) -> None:
        self.stack.append(set())

    def _do_list(self, _: Any) -> None:
        self.stack.append(self._pop_group())

    def _do_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._pop_group()))

    def _do_dict(self, _: Any) -> None:
        group = self._pop_group()
        self.stack.append({})
        self._set_items(group)

    def _do_frozenset(self, _: Any) -> None:
        self.stack.append({_make_key(value) for value in self._pop_group()})

    def _do_append(self, _: Any) -> None:
        self._extend([self._pop()])

    def _do_appends(self, _: Any) -> None:
        self._extend(self._pop_group())

    def _do_additems(self, _: Any) -> None:
        group = self._pop_group()
        if not isinstance(self.stack[-1], set):
            raise TypeError("a set was expected")
        self.stack[-1].update(map(_make_key, group))

    def _do_setitem(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _do_setitems(self, _: Any) -> None:
        self._set_items(self._pop_group())

    def _extend(self, values: list[Any]) -> None:
        top = self.stack[-1]
        if isinstance(top, InertRecord):
            if top.elements is None:
                top.elements = []
            top.elements.extend(values)
        elif is_list(top):
            top.extend(values)
        else:
            raise TypeError("a list was expected")

    def _set_items(self, group: list[Any]) -> None:
        top = self.stack[-1]
        if isinstance(top, InertRecord) and top.entries is None:
            top.entries = {}
        target: Any = top.entries if isinstance(top, InertRecord) else top
        if not is_dict(target) or len(group) % 2:
            raise TypeError("a dictionary was expected")
        target.update(zip(map(_make_key, group[::2]), group[1::2], strict=True))

    # Classes, calls and storages: none is imported, called or opened here

    def _do_global(self, argument: Any) -> None:
        self.stack.append(Global(".".join(str(argument).split(" ", 1))))

    def _do_stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("the name of a class was expected")
        self.stack.append(Global(f"{module}.{name}"))

    def _do_inst(self, argument: Any) -> None:
        args = tuple(self._pop_group())
        self.stack.append(self._make_object(Global(".".join(str(argument).split(" ", 1))), args))

    def _do_obj(self, _: Any) -> None:
        group = self._pop_group()
        self.stack.append(self._make_object(group[0], tuple(group[1:])))

    def _do_reduce(self, _: Any) -> None:
        args, function = self._pop(), self._pop()
        self.stack.append(self._make_object(function, args))

    _do_newobj = _do_reduce

    def _do_newobj_ex(self, _: Any) -> None:
        keywords, args, function = self._pop(), self._pop(), self._pop()
        self.stack.append(self._make_object(function, (args, keywords)))

    def _do_build(self, _: Any) -> None:
        state = self._pop()
        if isinstance(self.stack[-1], InertRecord):
            self.stack[-1].state = state

    def _do_binpersid(self, _: Any) -> None:
        given = self._pop()
        parts = tuple(given) if is_tuple(given) else ()
        if len(parts) != 5 or parts[0] != "storage" or not isinstance(parts[1], Global):
            raise ValueError("a storage was expected")
        if not isinstance(parts[2], str) or type(parts[4]) is not int:
            raise ValueError("a storage has no name or size")
        self.stack.append(StorageRecord(parts[1].name, parts[2], parts[4]))

    def _make_object(self, function: Any, args: Any) -> Any:
        """Return what stands for a call: a container, a tensor, or a record of it."""
        if not isinstance(function, Global) or not is_tuple(args):
            return InertRecord("unknown", (args,))
        given: tuple[Any, ...] = args
        if function.name in _CONTAINERS and (not given or (len(given) == 1 and is_list(given[0]))):
            return self._make_container(function.name, given[0] if given else [])
        if function.name in _TENSOR_BUILDERS and len(given) >= 4 and isinstance(given[0], StorageRecord):
            return TensorRecord(given[0], given[1], given[2], given[3])
        if function.name in _PARAMETER_BUILDERS and given and isinstance(given[0], TensorRecord):
            return given[0]
        return InertRecord(function.name, given)

    def _make_container(self, name: str, held: list[Any]) -> Any:
        self.copied += len(held)
        if self.copied > MAX_OPCODES:
            self._refuse(f"it copies more than {MAX_OPCODES} values")
        made = _CONTAINERS[name]()
        if is_dict(made):
            pairs: list[Any] = [pair for pair in held if (is_list(pair) or is_tuple(pair)) and len(pair) == 2]
            return {_make_key(key): value for key, value in pairs}
        return {_make_key(value) for value in held} if isinstance(made, set) else list(held)


def _make_key(value: Any) -> Any:
    """Return a value as a key that can't be made to meet others; what could is wrapped in a record."""
    if value is None or isinstance(value, str | bytes | bool | InertRecord | Global):
        return value
    if isinstance(value, int) and abs(value) < _MAX_KEY:
        return value
    return InertRecord("key", (value,))
