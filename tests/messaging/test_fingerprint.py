import copy
import math
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.stack.journals import endpoint_of
from lab.world import build
from messaging.endpoint import Endpoint
from messaging.fingerprint import fingerprint
from messaging.messages import Family
from messaging.units import HUB, NodeId
from tests.simulation.small import scenario

ROOT = Path(__file__).parent.parent.parent
PLACES_MAX = 150  # changed one at a time, spread over all there are


class Point(msgspec.Struct, frozen=True):
    x: Any
    y: Any


class Slots:
    """A plain object, with slots and with a dict."""

    __slots__ = ("__dict__", "a", "b")

    def __init__(self, a: object, b: object, c: object) -> None:
        self.a, self.b, self.c = a, b, c

    def __repr__(self) -> str:
        return "Slots()"  # the same in every process, for it names a test


class Colour(Enum):
    RED = 1
    BLUE = 2


def arrays(values: list[int]) -> Any:
    return np.array(values, dtype=np.int64)


keys = st.one_of(st.integers(), st.text(max_size=4), st.binary(max_size=4))
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    keys,
    st.sampled_from([*Colour, *Family]),
    st.frozensets(st.text(max_size=3), max_size=4),
    st.sets(st.integers(), max_size=4),
    st.lists(st.integers(-9, 9), max_size=4).map(arrays),
    st.floats(0, 1).map(np.float64),
)
plain = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.lists(inner, max_size=4).map(deque),
        st.dictionaries(keys, inner, max_size=4),
        st.builds(Point, inner, inner),
        st.builds(Slots, inner, inner, inner),
    ),
    max_leaves=12,
)


@given(plain)
def test_state_has_one_hash_wherever_it_is_copied_to(value: object) -> None:
    assert fingerprint(pickle.loads(pickle.dumps(value, protocol=5))) == fingerprint(value)
    assert fingerprint(copy.deepcopy(value)) == fingerprint(value)


@given(value=plain, other=plain)
def test_what_holds_another_value_has_another_hash(value: object, other: object) -> None:
    same = fingerprint(value) == fingerprint(other)
    for wrap in (
        lambda one: [one],
        lambda one: (0, one),
        lambda one: deque([one, "end"]),
        lambda one: {"key": one},
        lambda one: Point(one, None),
        lambda one: Slots(None, None, one),
    ):
        assert (fingerprint(wrap(value)) == fingerprint(wrap(other))) == same
        assert fingerprint(wrap(value)) != fingerprint(value)


@given(st.dictionaries(keys, st.integers(), min_size=2, max_size=5), st.data())
def test_a_dict_in_another_order_is_another_state(
    known: dict[Any, int], data: st.DataObject
) -> None:
    items = data.draw(st.permutations(list(known.items())))
    assert (fingerprint(dict(items)) == fingerprint(known)) == (items == list(known.items()))


@given(st.sets(st.text(max_size=4), max_size=8), st.randoms())
def test_a_set_has_no_order(values: set[str], dice: Any) -> None:
    shuffled = sorted(values)
    dice.shuffle(shuffled)
    assert fingerprint(frozenset(shuffled)) == fingerprint(values)


ALIKE = [
    (1, b"1"),
    (1, "1"),
    (1, True),
    (1, 1.0),
    (0.0, -0.0),
    (None, "None"),
    (b"ab", "ab"),
    (0, math.nan),
    ([1, 2], [2, 1]),
    ([], {}),
    ([[], 1], [[1]]),
    ((b"x\0y", b"z"), (b"x", b"y\0z")),
    ([b"a", b"b"], [b"a\0b", b""]),
    (("a", b"'\0"), ("a'", b"")),
    (Point(1, 2), Point(2, 1)),
    (Point(b"x", b"\0y"), Point(b"x\0", b"y")),
    (Slots(1, 2, 3), Slots(1, 3, 2)),
    (Colour.RED, Colour.BLUE),
    (np.array([1, 2]), np.array([2, 1])),
    (np.array([1, 2]), np.array([[1, 2]])),
    (np.array([1, 0]), np.array([1])),
    (np.zeros(2, np.int64), np.zeros(2, np.float64)),
    (np.float64(0), np.float32(0)),
]


@pytest.mark.parametrize(("one", "other"), ALIKE, ids=repr)
def test_what_looks_alike_is_told_apart(one: object, other: object) -> None:
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint([one, other]) != fingerprint([other, one])


@pytest.mark.parametrize("value", [object(), threading.Lock(), iter([1]), (lock for lock in [1])])
def test_what_is_no_data_has_no_hash(value: object) -> None:
    with pytest.raises(TypeError, match="expected plain data, found "):
        fingerprint({"here": [value]})


def test_an_array_counts_by_its_values_and_not_by_where_they_lie() -> None:
    whole = np.arange(24).reshape(4, 6)
    assert fingerprint(whole[::2, ::3]) == fingerprint(whole[::2, ::3].copy())
    assert fingerprint(whole.T) == fingerprint(np.ascontiguousarray(whole.T))


# --- of a node --------------------------------------------------------------------------


def worked(name: NodeId) -> Endpoint:
    """Return a node with half an hour of work behind it."""
    world = build(scenario(duration_h=0.5, traders={"accounts": 10, "open_until_h": 0.3}))
    for _ in world.driver().run():
        pass
    return next(one for one in world.endpoints if one.name == name)


def places(value: Any, change: Callable[[Any], None]) -> Iterator[Callable[[], Callable[[], None]]]:
    """Yield, for each number in a state, what changes it and returns what changes it back."""
    if type(value) is int:

        def bump() -> Callable[[], None]:
            change(value + 1)
            return lambda: change(value)

        yield bump
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from places(
                getattr(value, name), partial(msgspec.structs.force_setattr, value, name)
            )
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, partial(value.__setitem__, key))
    elif isinstance(value, list | deque):
        for index, item in enumerate(value):
            yield from places(item, partial(value.__setitem__, index))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from places(item, partial(change_item, value, index, change))
    elif isinstance(value, np.ndarray):
        for where in np.ndindex(value.shape):
            if value.dtype.kind == "i":
                yield from places(int(value[where]), partial(value.__setitem__, where))
    elif not isinstance(value, Enum) and hasattr(value, "__reduce_ex__"):
        names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in [*names, *getattr(value, "__dict__", {})]:
            if not callable(getattr(value, name)):
                yield from places(getattr(value, name), partial(setattr, value, name))


def change_item(value: Any, index: int, change: Callable[[Any], None], new: Any) -> None:
    """Put a tuple with another item in the place of a tuple."""
    items = (*value[:index], new, *value[index + 1 :])
    change(items if type(value) is tuple else type(value)(*items))


@pytest.mark.parametrize("name", [HUB, NodeId("base")])
def test_no_number_of_a_node_can_change_unseen(name: NodeId) -> None:
    endpoint = worked(name)
    before = fingerprint(endpoint)
    found = list(places(endpoint, lambda _: None))
    assert len(found) > 200

    for change in found[:: -(-len(found) // PLACES_MAX)]:
        change_back = change()
        assert fingerprint(endpoint) != before
        change_back()
    assert fingerprint(endpoint) == before


def test_two_nodes_that_saw_the_same_are_equal_and_a_new_one_is_not() -> None:
    one, other = worked(HUB), worked(HUB)
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(pickle.loads(pickle.dumps(one, protocol=5))) == fingerprint(one)
    assert fingerprint(one) != fingerprint(endpoint_of(scenario(), HUB))


PRINT_HASHES = (
    "from messaging.fingerprint import fingerprint; from messaging.units import HUB;"
    "from tests.messaging.test_fingerprint import worked;"
    "print(*map(fingerprint, (worked(HUB), worked('base'), set('abcdefgh'), {'a': {b'1', b'2'}})))"
)


def test_a_hash_does_not_depend_on_process_or_hash_seed() -> None:
    state = (worked(HUB), worked(NodeId("base")), set("abcdefgh"), {"a": {b"1", b"2"}})
    expected = [fingerprint(one) for one in state]
    out = subprocess.run(
        [sys.executable, "-c", PRINT_HASHES],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.split() == expected
