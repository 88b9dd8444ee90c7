"""Read the pickles of CIFAR's "python version" without running anything that a pickle asks for.

The official files are protocol 2 pickles that Python 2 wrote: a dict of byte strings, lists, integers and one uint8
array. Here a small machine of our own walks through their opcodes (``pickletools`` decodes them and runs none). It
imports no module by a name from the file: the three functions that such files call are known by name and restated.
Everything else is refused, and size, opcodes and array are bounded.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_BYTES = 64 * 1024**2
MAX_OPCODES = 1_000_000
_RECONSTRUCT = {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"}  # before and after NumPy 2

_LITERALS = {"BININT", "BININT1", "BININT2", "BINUNICODE"}
_BYTE_STRINGS = {"BINSTRING", "SHORT_BINSTRING"}
_PUSHED: dict[str, Callable[[], object]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS, _GETS = {"BINPUT", "LONG_BINPUT"}, {"BINGET", "LONG_BINGET"}


class RefusedError(ValueError):
    """The pickle holds something that plain data does not need."""


@dataclass(frozen=True)
class _Name:
    """``module.name`` as the file spells it; nothing is imported."""

    text: str


@dataclass
class _Dtype:
    """NumPy's uint8; any other dtype is refused."""


@dataclass
class _Array:
    """An array that is being put together; ``values`` None until its state has been set."""

    values: npt.NDArray[np.uint8] | None = None


def load_plain(data: bytes) -> object:
    """A pickle of dicts, lists, tuples, integers, None, booleans, strings and uint8 arrays.

    Byte strings of Python 2 come back as bytes, as ``pickle.load(..., encoding="bytes")`` gives them; a uint8 array at
    the top or as a value of a dict as a read-only NumPy array.

    Raises:
        ValueError: damaged, over a limit, or it asks for anything else (``RefusedError``).
    """
    if len(data) > MAX_BYTES:
        raise RefusedError(f"{len(data)} bytes are over the limit of {MAX_BYTES}")
    machine, stream = _Machine(), io.BytesIO(data)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count == MAX_OPCODES:
                raise RefusedError(f"over {MAX_OPCODES} opcodes")
            if opcode.name != "STOP":
                machine.step(opcode.name, argument)
    except IndexError as error:
        raise ValueError("damaged pickle: it takes what it has not put") from error
    if stream.read(1):
        raise RefusedError("data after its end")
    return _finished(machine.result())


def _finished(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finished(item) if isinstance(item, _Array) else item for key, item in value.items()}
    return value.values if isinstance(value, _Array) else value


class _Machine:
    """The stack machine of a pickle, for plain data."""

    def __init__(self) -> None:
        self._stack: list[object] = []
        self._below: list[list[object]] = []  # stacks that marks have set aside
        self._memo: dict[int, object] = {}

    def step(self, name: str, argument: object) -> None:
        """Carry out one opcode; raises ``RefusedError`` for any that plain data does not need."""
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _BYTE_STRINGS:
            self._stack.append(str(argument).encode("latin-1"))
        elif name in _PUSHED:
            self._stack.append(_PUSHED[name]())
        elif name in _TUPLES:
            self._tuple(_TUPLES[name])
        elif name in _PUTS:
            self._memo[_index(argument)] = self._stack[-1]
        elif name in _GETS:
            self._stack.append(self._remembered(_index(argument)))
        else:
            self._special(name, argument)

    def result(self) -> object:
        """What is left when all is done."""
        if len(self._stack) != 1 or self._below:
            raise ValueError("damaged pickle: it leaves more or less than one value")
        return self._stack[0]

    def _special(self, name: str, argument: object) -> None:
        if name == "PROTO":
            if argument != 2:
                raise RefusedError(f"protocol {argument}; the official files have protocol 2")
        elif name == "MARK":
            self._below.append(self._stack)
            self._stack = []
        elif name == "GLOBAL":
            self._stack.append(_Name(str(argument).replace(" ", ".", 1)))
        elif name in _ACTIONS:
            _ACTIONS[name](self)
        else:
            raise RefusedError(f"opcode {name} is not allowed; the official files have none")

    def _remembered(self, index: int) -> object:
        if index not in self._memo:
            raise ValueError(f"damaged pickle: it takes entry {index}, which it has not put")
        return self._memo[index]

    def _to_mark(self) -> list[object]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _tuple(self, size: int) -> None:
        items = [self._stack.pop() for _ in range(size)]
        self._stack.append(tuple(items[::-1]))

    def marked_tuple(self) -> None:
        items = self._to_mark()
        self._stack.append(tuple(items))

    def append(self) -> None:
        item = self._stack.pop()
        self._extend([item])

    def appends(self) -> None:
        self._extend(self._to_mark())

    def _extend(self, items: list[object]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise RefusedError(f"appends to a {type(target).__name__}")
        target.extend(items)

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_items(self) -> None:
        self._set(self._to_mark())

    def _set(self, items: list[object]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise RefusedError(f"sets items of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, bytes | str):
                raise RefusedError(f"a dict with a key of type {type(key).__name__}")
            target[key] = value

    def reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(_call(function, arguments))

    def build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, _Array):
            target.values = _array(state)
        elif not isinstance(target, _Dtype):
            raise RefusedError(f"sets the state of a {type(target).__name__}")


_ACTIONS: dict[str, Callable[[_Machine], None]] = {
    "TUPLE": _Machine.marked_tuple,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}


def _index(argument: object) -> int:
    assert isinstance(argument, int)  # pickletools gives these opcodes integers
    return argument


def _call(function: object, arguments: object) -> object:
    """The three calls of the official files and of their like that Python 3 writes: restated here, never looked up."""
    name = function.text if isinstance(function, _Name) else f"a {type(function).__name__}"
    given = arguments if isinstance(arguments, tuple) else ()
    if name in _RECONSTRUCT and given == (_Name("numpy.ndarray"), (0,), b"b"):
        return _Array()
    if name == "numpy.dtype" and given[:1] in [("u1",), (b"u1",)]:
        return _Dtype()
    if name == "_codecs.encode" and len(given) == 2 and isinstance(given[0], str) and given[1] == "latin1":
        return given[0].encode("latin-1")  # how Python 3 writes bytes into a protocol 2 pickle
    raise RefusedError(f"it calls {name} as the official files never do: not allowed, and not run")


def _array(state: object) -> npt.NDArray[np.uint8]:
    """From NumPy's state of an array: (version, shape, dtype, whether in Fortran order, bytes)."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise RefusedError("an array whose state is not NumPy's")
    _, shape, dtype, fortran, content = state
    sized = isinstance(shape, tuple) and 0 < len(shape) <= 4 and all(type(n) is int and n >= 0 for n in shape)
    if not (sized and isinstance(dtype, _Dtype) and not fortran and isinstance(content, bytes)):
        raise RefusedError("an array that is not uint8 in C order")
    array = np.frombuffer(content, np.uint8)
    return array.reshape(shape)
