"""A hash of everything a node knows, equal in any process, whatever the hash seed (INV11)."""

from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from hashlib import blake2b
from types import MethodType, NoneType
from typing import Any, TypeAlias

import msgspec
import numpy as np

DIGEST_BYTES = 16
_Pieces: TypeAlias = list[bytes]
_Walk: TypeAlias = Callable[[Any, _Pieces], None]


def fingerprint(value: object) -> str:
    """Return a hash of a value by its structure: types, fields, order of entries.

    Raises:
        TypeError: something that is no plain data, such as an open file.
    """
    pieces: _Pieces = []
    _walk(value, pieces)
    told = b"".join([b"%d:%b" % (len(piece), piece) for piece in pieces])
    return blake2b(told, digest_size=DIGEST_BYTES).hexdigest()


def _walk(value: Any, out: _Pieces) -> None:
    kind = type(value)
    walk = _WALKS.get(kind)
    if walk is None:
        walk = _WALKS[kind] = _way(kind)
    walk(value, out)


def _way(kind: type) -> _Walk:
    """Return how values of a type are gone through, the first time that one is met."""
    for bases, walk in _KINDS:
        if issubclass(kind, bases):
            return walk
    return _object(kind)


def _plain(value: Any, out: _Pieces) -> None:
    out.append(repr(value).encode())


def _bytes(value: bytes, out: _Pieces) -> None:
    out += (b"bytes", value)


def _enum(value: Enum, out: _Pieces) -> None:
    out.append(repr(value.value).encode())


def _struct(value: msgspec.Struct, out: _Pieces) -> None:
    out.append(type(value).__qualname__.encode())
    for name in value.__struct_fields__:
        _walk(getattr(value, name), out)


def _sequence(value: Any, out: _Pieces) -> None:
    out.append(b"[%d" % len(value))
    for item in value:
        _walk(item, out)


def _mapping(value: Mapping[Any, Any], out: _Pieces) -> None:
    out.append(b"{%d" % len(value))
    for key, item in value.items():  # in order, for a node may go through them in order
        _walk(key, out)
        _walk(item, out)


def _set(value: Any, out: _Pieces) -> None:
    out.append(b"(%d" % len(value))
    for item in sorted(value):
        _walk(item, out)


def _array(value: Any, out: _Pieces) -> None:
    out += (value.dtype.str.encode(), repr(value.shape).encode(), value.tobytes())


def _scalar(value: Any, out: _Pieces) -> None:
    out += (value.dtype.str.encode(), value.tobytes())


def _method(value: MethodType, out: _Pieces) -> None:
    out.append(value.__qualname__.encode())


def _object(kind: type) -> _Walk:
    slots = [name for one in kind.__mro__ for name in getattr(one, "__slots__", ())]

    def walk(value: Any, out: _Pieces) -> None:
        fields = getattr(value, "__dict__", None)
        if fields is None and not slots:
            raise TypeError(f"expected plain data, found {kind.__qualname__}")
        out.append(kind.__qualname__.encode())
        for name in sorted([*slots, *(fields or ())]):
            out.append(name.encode())
            _walk(getattr(value, name), out)

    return walk


_WALKS: dict[type, _Walk] = dict.fromkeys((NoneType, bool, int, float, str), _plain)
_KINDS: tuple[tuple[Any, _Walk], ...] = (
    (bytes, _bytes),
    (Enum, _enum),
    (msgspec.Struct, _struct),
    ((tuple, list, deque), _sequence),
    (Mapping, _mapping),
    ((set, frozenset), _set),
    (np.ndarray, _array),
    (np.generic, _scalar),
    (MethodType, _method),
)
