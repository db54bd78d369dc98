"""A hash of everything a node knows, equal in any process, whatever the hash seed (INV11)."""

from collections import deque
from collections.abc import Mapping
from enum import Enum
from hashlib import blake2b
from types import MethodType
from typing import Any

import msgspec
import numpy as np

DIGEST_BYTES = 16


def fingerprint(value: object) -> str:
    """Return a hash of a value by its structure: types, fields, order of entries.

    Raises:
        TypeError: something that is no plain data, such as an open file.
    """
    pieces: list[bytes] = []
    _walk(value, pieces)
    digest = blake2b(digest_size=DIGEST_BYTES)
    for piece in pieces:
        digest.update(b"%d:" % len(piece))
        digest.update(piece)
    return digest.hexdigest()


def _walk(value: Any, out: list[bytes]) -> None:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        out.append(repr(value).encode())
    elif kind is bytes:
        out += [b"bytes", value]
    elif isinstance(value, Enum):
        out.append(repr(value.value).encode())
    elif isinstance(value, msgspec.Struct):
        out.append(kind.__qualname__.encode())
        for name in value.__struct_fields__:
            _walk(getattr(value, name), out)
    elif isinstance(value, tuple | list | deque):
        out.append(b"[%d" % len(value))
        for item in value:
            _walk(item, out)
    elif isinstance(value, Mapping):
        out.append(b"{%d" % len(value))
        for key, item in value.items():  # in order, for a node may go through them in order
            _walk(key, out)
            _walk(item, out)
    elif isinstance(value, set | frozenset):
        out.append(b"(%d" % len(value))
        for item in sorted(value):
            _walk(item, out)
    elif isinstance(value, np.ndarray):
        out += [value.dtype.str.encode(), repr(value.shape).encode(), value.tobytes()]
    elif isinstance(value, np.generic):
        out += [value.dtype.str.encode(), value.tobytes()]
    elif isinstance(value, MethodType):
        out.append(value.__qualname__.encode())
    else:
        _walk_object(value, out)


def _walk_object(value: Any, out: list[bytes]) -> None:
    names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    names += getattr(value, "__dict__", {})
    if not names and not hasattr(value, "__dict__"):
        raise TypeError(f"expected plain data, found {type(value).__qualname__}")
    out.append(type(value).__qualname__.encode())
    for name in sorted(names):
        out.append(name.encode())
        _walk(getattr(value, name), out)
