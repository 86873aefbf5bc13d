"""What an embedding's file holds, without unpickling it: that would run whatever a stranger put in.

A pickle is a program for a small machine. Its opcodes are followed here on a machine that builds
nothing but plain values and notes of calls, knows by name the few functions that a tensor's pickle
calls, and calls none of them. What else is named in it, is named to the user. The numbers of the
tensor, which lie in it as bytes, are looked at with numpy.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from chronoprep.data import Flaw
from chronoprep.umt5.text import MAX_TOKENS

WIDTH = 4096  # of the trainer's text embeddings
MOST_BYTES = 1 << 28  # of a file; 512 rows of double precision take a sixteenth of it

_REBUILD = "torch._utils._rebuild_tensor_v2"
_STORAGE = "torch.storage._load_from_bytes"
_PARAMETER = "torch._utils._rebuild_parameter"
_CALLED = {_REBUILD, _STORAGE, _PARAMETER, "collections.OrderedDict", "_codecs.encode"}
# Of others' arrays: never what the trainer wants, and never harmful.
_ARRAYS = {
    f"numpy.{module}.{name}"
    for module in ("core.multiarray", "_core.multiarray", "core.numeric", "_core.numeric")
    for name in ("_reconstruct", "_frombuffer", "scalar")
} | {"numpy.ndarray", "numpy.dtype"}
# Bytes of a number, by the name of its storage.
_SIZES = {
    "BFloat16": 2, "Half": 2, "Float": 4, "Double": 8, "Byte": 1, "Char": 1, "Short": 2, "Int": 4,
    "Long": 8, "Bool": 1, "ComplexFloat": 8, "ComplexDouble": 16,
}  # fmt: skip
_FLOATS = {"Half": "<f2", "Float": "<f4", "Double": "<f8"}
_STORAGES = {f"torch.{name}Storage": name for name in _SIZES}

_CONSTANTS: dict[str, Any] = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (),
}  # fmt: skip
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_LEGACY = (0x1950A86A20F9469CFC6C, 1001)  # how torch begins a storage that is pickled by itself


class _Unsafe(Exception):  # noqa: N818 - it ends in no handler but ours
    """What a pickle would do when it is loaded."""


class _Global(str):
    """A name in a module."""

    __slots__ = ()


class _Call(NamedTuple):
    """A call that unpickling would make."""

    function: str
    arguments: tuple[Any, ...]


class _Mark:
    pass


class _Tensor(NamedTuple):
    """A tensor as its pickle describes it.

    Attributes:
        kind: Of its numbers, as torch names the storage: BFloat16, Float, …
        stored: How many numbers lie in its storage.
        data: The bytes of these.
        grad: Whether it wants a gradient.
    """

    kind: str
    device: str
    stored: int
    data: memoryview
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    grad: bool


def flaws_of_embedding(path: Path) -> list[Flaw]:
    """What is wrong with an embedding's file, for a trainer that unpickles it.

    Raises:
        OSError: It can't be read.
    """
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if not data:
        return [Flaw("file-empty", f"{path}: the file is empty.")]
    if data.startswith(b"version https://git-lfs"):
        return [Flaw("lfs-pointer", f"{path}: a Git LFS pointer, not the file itself.")]
    if data.startswith(b"PK\x03\x04"):
        return [Flaw("embedding-torch-save", f"{path}: a file of torch.save, and no plain pickle.")]
    if len(data) > MOST_BYTES:
        what = f"{path}: larger than {MOST_BYTES >> 20} MB, which no embedding of a prompt is."
        return [Flaw("embedding-huge", what)]
    try:
        value, _ = _value(data, 0, nested=False)
        tensor = _tensor(value)
    except _Unsafe as error:
        return [Flaw("pickle-unsafe", f"{path}: loading it would {error}.")]
    except Exception as error:  # what damage makes of opcodes: nearly any
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return [Flaw("pickle-damaged", f"{path}: no whole pickle: {reason}.")]
    if tensor is None:
        what = value.function if isinstance(value, _Call) else type(value).__name__
        return [Flaw("embedding-type", f"{path}: holds no tensor but {what}.")]
    return [Flaw(code, f"{path}: {what}.") for code, what in _flaws_of_tensor(tensor)]


def _flaws_of_tensor(tensor: _Tensor) -> Iterator[tuple[str, str]]:
    shape = "×".join(map(str, tensor.shape))
    if tensor.device != "cpu":
        yield "embedding-device", f"its numbers belong on {tensor.device}, not on the CPU"
    if tensor.grad:
        yield "embedding-grad", "it wants a gradient, so no loader's process can hand it on"
    if len(tensor.shape) != 2 or tensor.shape[1] != WIDTH or not 0 < tensor.shape[0] <= MAX_TOKENS:
        yield "embedding-shape", f"[{shape}] and not [at most {MAX_TOKENS}, {WIDTH}]"
        return
    if tensor.kind != "BFloat16":
        yield "embedding-dtype", f"its numbers are {tensor.kind} and not BFloat16"
    needed = tensor.shape[0] * tensor.shape[1]
    if tensor.stored > needed:
        yield "embedding-not-compact", f"[{shape}] lies in a storage of {tensor.stored} numbers"
    rows = _numbers(tensor)
    if rows is None:
        return
    if not np.isfinite(rows).all():
        yield "embedding-not-finite", "it holds NaN or infinite numbers"
        return
    zero = rows.sum(axis=1, dtype=np.float64) == 0
    if zero.any():
        first, count = int(zero.argmax()), int(zero.sum())
        if zero.all():
            yield "embedding-zero", "all of it is zero: the trainer sees no text"
        elif zero[first:].all():
            yield "embedding-padded", f"its last {count} rows are zero: padding"
        else:
            yield "embedding-zero-row", f"row {first} sums to zero: the trainer loses the last row"


def _numbers(tensor: _Tensor) -> np.ndarray | None:
    """The numbers of a matrix as floating point; None where they are of another kind."""
    if tensor.kind == "BFloat16":
        flat = np.frombuffer(tensor.data, "<u2")
    elif tensor.kind in _FLOATS:
        flat = np.frombuffer(tensor.data, _FLOATS[tensor.kind])
    else:
        return None
    strides = [step * flat.itemsize for step in tensor.stride]
    view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides)
    if tensor.kind == "BFloat16":  # the upper half of a float32
        return (view.astype(np.uint32) << 16).view(np.float32)
    return view


def _tensor(value: object) -> _Tensor | None:
    """The tensor that a pickle's value would become; None where it would be something else.

    Raises:
        _Unsafe, ValueError, …: As `_value`; or its parts don't fit together.
    """
    if isinstance(value, _Call) and value.function == _PARAMETER:
        inner = _tensor(value.arguments[0])
        return inner._replace(grad=bool(value.arguments[1])) if inner is not None else None
    if not isinstance(value, _Call) or value.function != _REBUILD:
        return None
    storage, offset, shape, stride, grad = value.arguments[:5]
    if not isinstance(storage, _Call) or storage.function != _STORAGE:
        return None
    kind, device, stored, data = storage.arguments[0]
    numbers = [offset, *shape, *stride]
    if len(shape) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("a tensor of impossible shape")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if last >= stored and 0 not in shape:
        raise ValueError("a tensor that reaches beyond its storage")
    return _Tensor(kind, device, stored, data, offset, tuple(shape), tuple(stride), bool(grad))


def _storage(data: bytes) -> tuple[str, str, int, memoryview]:
    """Kind, device, count and bytes of the numbers in a storage, which torch puts into pickles of
    its own: two that tell its version, one of the machine, the storage, its name."""
    values, at = [], 0
    for _ in range(5):
        value, at = _value(data, at, nested=True)
        values.append(value)
    magic, version, machine, stored, _names = values
    if (magic, version) != _LEGACY or not (isinstance(machine, dict) and machine["little_endian"]):
        raise ValueError("a storage of another kind than torch writes")
    _, kind, _, device, count, *_ = stored.arguments
    size = _SIZES[_STORAGES[kind]]
    if int.from_bytes(data[at : at + 8], "little") != count or len(data) - at - 8 != count * size:
        raise ValueError(f"it says {count} numbers and holds {(len(data) - at - 8) // size}")
    return _STORAGES[kind], str(device), count, memoryview(data)[at + 8 :]


def _bytes(value: object) -> bytes:
    """Bytes, which protocol 2 writes as text."""
    if isinstance(value, _Call) and value.function == "_codecs.encode":
        text, encoding = value.arguments
        if isinstance(text, str) and encoding == "latin1":
            return text.encode("latin1")
    if not isinstance(value, bytes | bytearray):
        raise _Unsafe(f"read a storage from {type(value).__name__}")
    return bytes(value)


def _value(data: bytes, start: int, *, nested: bool) -> tuple[Any, int]:
    """The value of the pickle that begins somewhere in bytes, and where it ends.

    Args:
        nested: Whether it is one of a storage's own, which names kinds of storages.

    Raises:
        _Unsafe: It names or does what no embedding has need of.
        ValueError, IndexError, …: It is damaged.
    """
    file = BytesIO(data)
    file.seek(start)
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    allowed = set(_STORAGES) if nested else _CALLED | _ARRAYS
    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in ("PROTO", "FRAME"):
            pass
        elif name == "STOP":
            return stack.pop(), file.tell()
        elif name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_Mark)
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("TUPLE", "LIST", "FROZENSET"):
            stack.append(tuple(_above_mark(stack)))
        elif name in ("DICT", "SETITEMS", "SETITEM"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else _above_mark(stack)
            if name == "DICT":
                stack.append({})
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            added = [stack.pop()] if name == "APPEND" else _above_mark(stack)
            (stack[-1].update if name == "ADDITEMS" else stack[-1].extend)(added)
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            parts = argument.split(" ", 1) if name == "GLOBAL" else [stack.pop(-2), stack.pop()]
            called = _Global(".".join(map(str, parts)))
            if called not in allowed:
                raise _Unsafe(f"import {called}")
            stack.append(called)
        elif name == "REDUCE" and not nested:
            arguments, function = stack.pop(), stack.pop()
            if not isinstance(function, _Global) or not isinstance(arguments, tuple):
                raise _Unsafe("call what is no function by name")
            if function == _STORAGE:  # bytes that torch unpickles in their turn
                arguments = (_storage(_bytes(*arguments)),)
            stack.append(_Call(function, arguments))
        elif name == "BUILD" and isinstance(stack[-2], _Call) and stack[-2].function in _ARRAYS:
            stack.pop()
        elif name == "BINPERSID" and nested:
            stored = stack.pop()
            if not isinstance(stored, tuple) or stored[:1] != ("storage",) or len(stored) < 5:
                raise _Unsafe("ask torch for more than a storage")
            stack.append(_Call("storage", stored))
        else:
            raise _Unsafe(f"use {name}, of which an embedding has no need")
    raise ValueError("it has no end")


def _above_mark(stack: list[Any]) -> list[Any]:
    at = len(stack) - 1 - stack[::-1].index(_Mark)
    items = stack[at + 1 :]
    del stack[at:]
    return items
