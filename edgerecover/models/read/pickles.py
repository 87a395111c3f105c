"""Reading pickles without running anything in them: imports and calls become inert records.

A pickle is a program for a small stack machine. Only two of its instructions, "import this name" and "call it", can do
harm; here they make records instead. The standard library's `pickletools` splits the bytes into instructions. The
machine below is ours, because `pickle.Unpickler` lets a file choose the size of buffers and tables in advance, and
pass in objects whose methods it then calls.

Stdlib only.
"""

from __future__ import annotations

import io
import mmap
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgerecover.models.read.records import Made, Name, Outside, PickleError

MAX_INSTRUCTIONS = 1_000_000
"""Limit for one pickle. A ResNet-152 with its optimizer takes 76,000."""

_MAX_KEY = 1 << 31
"""Integers from here on are not accepted as dictionary keys: a file could choose them so that all collide."""

_SET = Name("builtins", "set")

_DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict")


@dataclass(frozen=True)
class Parsed:
    """One pickle, as a tree that may hold itself."""

    root: Any
    """None, bool, int, float, str, bytes, tuple, list, dict (str and small int keys), Name, Made or Outside."""
    names: frozenset[str]
    """Everything that unpickling would have imported, as `module.name`."""
    stored: tuple[Outside, ...]
    """Everything that it refers to outside of itself, in the pickle's order."""


def parse(stream: bytes | io.BytesIO | mmap.mmap) -> Parsed:
    """Read one pickle from the stream's position, and leave the stream at its end.

    Time and memory are bounded by the size of the pickle and by `MAX_INSTRUCTIONS`.

    Raises:
        PickleError: the bytes are not a pickle, truncated or damaged, or have too many instructions.
    """
    machine = _Machine()
    try:
        instructions = pickletools.genops(stream)  # type: ignore[arg-type]  # an mmap reads like a file
        for count, (opcode, argument, _) in enumerate(instructions):
            if count == MAX_INSTRUCTIONS:
                raise PickleError(f"more than {MAX_INSTRUCTIONS:,} instructions")
            machine.step(opcode.name, argument)
    except PickleError:
        raise
    except Exception as error:  # hostile bytes raise anything
        raise PickleError(f"{type(error).__name__}: {str(error)[:100]}") from error
    return Parsed(machine.result, frozenset(map(str, machine.names.values())), tuple(machine.stored))


class _Machine:
    """The stack machine; an instruction takes time proportional to what it takes off the stack."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        """Stacks below each mark."""
        self.memo: dict[int, Any] = {}
        self.names: dict[tuple[str, str], Name] = {}
        self.stored: list[Outside] = []
        self.result: Any = None

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        elif opcode not in ("PROTO", "FRAME"):
            raise PickleError(f"instruction {opcode}, which checkpoints never use")

    def pop(self) -> Any:
        if not self.stack:
            raise PickleError("takes more off the stack than is there")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise PickleError("looks at an empty stack")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        if not self.below:
            raise PickleError("a mark is missing")
        items, self.stack = self.stack, self.below.pop()
        return items

    # --- stack and memo ---

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_one(self, _: Any) -> None:
        if not self.stack and self.below:
            self.stack = self.below.pop()
        else:
            self.pop()

    def drop_to_mark(self, _: Any) -> None:
        self.pop_to_mark()

    def duplicate(self, _: Any) -> None:
        self.stack.append(self.top())

    def put(self, index: int) -> None:
        # There are at most as many entries as instructions; indices are bounded so that no file can make them collide.
        if not 0 <= index < _MAX_KEY:
            raise PickleError("a memo index out of range")
        self.memo[index] = self.top()

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise PickleError("refers to a memo entry that is not there")
        self.stack.append(self.memo[index])

    def stop(self, _: Any) -> None:
        self.result = self.pop()

    # --- containers ---

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def tuple_to_mark(self, _: Any) -> None:
        items = tuple(self.pop_to_mark())
        self.stack.append(items)

    def list_to_mark(self, _: Any) -> None:
        items = self.pop_to_mark()
        self.stack.append(items)

    def dict_to_mark(self, _: Any) -> None:
        items = self.pop_to_mark()
        self.stack.append({})
        self._set_items(items)

    def frozen_set(self, _: Any) -> None:
        made = Made(_SET, ())
        made.elements = self.pop_to_mark()
        self.stack.append(made)

    def append(self, _: Any) -> None:
        item = self.pop()
        self._append_items([item])

    def append_to_mark(self, _: Any) -> None:
        self._append_items(self.pop_to_mark())

    def set_item(self, _: Any) -> None:
        value = self.pop()
        self._set_items([self.pop(), value])

    def set_items(self, _: Any) -> None:
        self._set_items(self.pop_to_mark())

    def _append_items(self, items: list[Any]) -> None:
        to = self.top()
        if isinstance(to, list):
            to.extend(items)
        elif isinstance(to, Made):
            to.elements = [] if to.elements is None else to.elements
            to.elements.extend(items)
        else:
            raise PickleError("appends to something that is not a list")

    def _set_items(self, items: list[Any]) -> None:
        to = self.top()
        if isinstance(to, Made):
            to.entries = {} if to.entries is None else to.entries
            to = to.entries
        if not isinstance(to, dict) or len(items) % 2:
            raise PickleError("assigns items to something that is not a dictionary")
        _fill(to, zip(items[::2], items[1::2], strict=True))

    # --- what would run code ---

    def name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_name(module, name)

    def name_from_stack(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self._push_name(module, name)

    def _push_name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("imports something without a name")
        self.stack.append(self.names.setdefault((module, name), Name(module, name)))

    def reduce(self, _: Any) -> None:
        args = self.pop()
        self.stack.append(_make(self.pop(), args))

    def new_object_with_keywords(self, _: Any) -> None:
        keywords, args, by = self.pop(), self.pop(), self.pop()
        self.stack.append(Made(by, (args, keywords)))

    def instance(self, argument: str) -> None:
        args = tuple(self.pop_to_mark())
        self.name(argument)
        self.stack.append(_make(self.pop(), args))

    def object_to_mark(self, _: Any) -> None:
        items = self.pop_to_mark()
        if not items:
            raise PickleError("makes an object of no class")
        self.stack.append(_make(items[0], tuple(items[1:])))

    def build(self, _: Any) -> None:
        state, to = self.pop(), self.top()
        if isinstance(to, Made):
            to.state = state

    def outside(self, _: Any) -> None:
        reference = Outside(self.pop())
        self.stored.append(reference)
        # Before torch 1.6, the classes of whole modules came with their source: ("module", class, file, source).
        is_class = isinstance(reference.id, tuple) and len(reference.id) > 1 and reference.id[0] == "module"
        self.stack.append(reference.id[1] if is_class else reference)

    def outside_by_text(self, argument: str) -> None:
        self.stack.append(Outside(argument))


def _make(by: Any, args: Any) -> Any:
    """A dictionary for calls that make one, a record for everything else."""
    if not isinstance(by, Name) or str(by) not in _DICTIONARIES:
        return Made(by, args)
    made: dict[str | int, Any] = {}
    pairs = args[-1] if isinstance(args, tuple) and args else ()
    if isinstance(pairs, list):
        _fill(made, (pair for pair in pairs if isinstance(pair, tuple | list) and len(pair) == 2))
    elif isinstance(pairs, dict):
        made.update(pairs)
    return made


def _fill(to: dict[Any, Any], pairs: Any) -> None:
    for key, value in pairs:
        if isinstance(key, str | Made) or (isinstance(key, int) and -_MAX_KEY < key < _MAX_KEY):
            to[key] = value


_VALUES = frozenset(
    (
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
        "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE",
        "BINUNICODE", "BINUNICODE8",
    )
)  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Made(_SET, ()),
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop_one,
    "POP_MARK": _Machine.drop_to_mark,
    "DUP": _Machine.duplicate,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "STOP": _Machine.stop,
    "TUPLE": _Machine.tuple_to_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": _Machine.list_to_mark,
    "DICT": _Machine.dict_to_mark,
    "FROZENSET": _Machine.frozen_set,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.append_to_mark,
    "ADDITEMS": _Machine.append_to_mark,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_from_stack,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_object_with_keywords,
    "INST": _Machine.instance,
    "OBJ": _Machine.object_to_mark,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.outside,
    "PERSID": _Machine.outside_by_text,
}
