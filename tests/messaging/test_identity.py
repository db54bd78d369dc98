import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import msgpack
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nacl.signing import VerifyKey

from messaging.errors import FrameRefused, InputRefused
from messaging.identity import (
    NO_DIGEST,
    PURPOSE,
    SEALED_BYTES_MAX,
    VOUCHED_MAX,
    Sealed,
    Signer,
    Verifier,
    domain_of,
)
from messaging.key_files import read_signer, read_verifier, write_keys
from messaging.units import HUB, NodeId

BASE, NOBODY = NodeId("base"), NodeId("nobody")
DOMAIN = domain_of("test", "one", "hub")
SIGNER = Signer(DOMAIN, bytes(32))
HUB_SIGNER = Signer(DOMAIN, b"\1" * 32)
VERIFIER = Verifier(DOMAIN, {BASE: SIGNER.public, HUB: HUB_SIGNER.public})
NO_SIGNATURE = bytes(64)

digests = st.binary(min_size=32, max_size=32)


def seal(frame: bytes, before: bytes = NO_DIGEST) -> bytes:
    return SIGNER.seal(frame, before)[0]


def parts(data: bytes) -> Sealed:
    return msgspec.msgpack.decode(data, type=Sealed)


def changed(data: bytes, **fields: bytes) -> bytes:
    """Return a sealed frame with other fields, its signature as it was unless given."""
    return msgspec.msgpack.encode(msgspec.structs.replace(parts(data), **fields))


def refusal_of(data: bytes, sender: NodeId = BASE, verifier: Verifier = VERIFIER) -> str:
    with pytest.raises(FrameRefused) as refused:
        verifier.open(data, sender)
    return str(refused.value)


# --- one frame --------------------------------------------------------------------------


@given(frame=st.binary(max_size=300), before=digests)
def test_a_sealed_frame_opens_to_the_bytes_that_went_in(frame: bytes, before: bytes) -> None:
    sealed, digest = SIGNER.seal(frame, before)

    found = VERIFIER.open(sealed, BASE)

    assert (found.frame, found.before, found.digest()) == (frame, before, digest)
    assert SIGNER.digest(frame, before) == digest
    assert seal(frame, before) == sealed  # sealing again gives the same bytes


def test_any_messagepack_tool_and_any_ed25519_can_check_a_seal() -> None:
    version, domain, key, before, frame, signature = msgpack.unpackb(seal(b"fact", b"\7" * 32))

    digest = sha256(domain + key + before + sha256(frame).digest()).digest()
    VerifyKey(SIGNER.public).verify(PURPOSE + digest, signature)
    assert (version, domain, frame, before) == ("sealed.1", DOMAIN, b"fact", b"\7" * 32)
    assert key == sha256(SIGNER.public).digest()[:8]
    assert PURPOSE.startswith(b"omnimargin/v1/")  # what is signed here means nothing elsewhere


def test_no_bit_of_a_sealed_frame_can_be_changed() -> None:
    sealed = seal(
        b"pay 5 dollars to ann, and nothing to anybody else whatever they say",
        SIGNER.digest(b"first", NO_DIGEST),
    )
    for place in range(len(sealed)):
        for bit in range(8):
            forged = bytearray(sealed)
            forged[place] ^= 1 << bit
            refusal_of(bytes(forged))


@pytest.mark.parametrize("field", ["domain", "key", "before", "frame", "signature"])
@given(data=st.data())
def test_no_field_can_have_another_value_of_any_size(field: str, data: st.DataObject) -> None:
    sealed = seal(
        b"pay 5 dollars to ann, and nothing to anybody else whatever they say", b"\7" * 32
    )
    known = getattr(parts(sealed), field)
    other = data.draw(st.binary(max_size=80).filter(lambda value: value != known))

    refusal_of(changed(sealed, **{field: other}))


@given(cut=st.integers(0, 200), more=st.binary(min_size=1, max_size=20))
def test_a_frame_that_is_cut_off_or_has_more_behind_it_is_refused(cut: int, more: bytes) -> None:
    sealed = seal(b"fact")

    refusal_of(sealed[: min(cut, len(sealed) - 1)])
    refusal_of(sealed + more)


@given(more=st.lists(st.binary(max_size=9), min_size=1, max_size=3))
def test_a_seal_with_fields_that_no_signature_covers_is_refused(more: list[bytes]) -> None:
    refusal_of(msgpack.packb([*msgpack.unpackb(seal(b"fact")), *more]))


leaves = st.one_of(st.none(), st.booleans(), st.integers(-5, 2**63), st.binary(), st.text())
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=400), values.map(msgpack.packb)))
@example(msgpack.packb(["sealed.1", DOMAIN, b"", b"", b"", b""]))
@example(msgpack.packb(["sealed.1", None, None, None, None, None]))
@example(b"\x91" * 50_000)  # a list in a list in a list
@example(b"\xdd\xff\xff\xff\xff")  # a list of four billion, none of which comes
@example(msgpack.packb(["x" * 60_000, b"", b"", b"", b"", b""]))
def test_whatever_else_comes_is_refused_and_nothing_else_happens(data: bytes) -> None:
    refusal_of(data)
    (found,) = VERIFIER.open_row([data], BASE, {})
    assert isinstance(found, FrameRefused)


def test_only_the_sender_can_have_signed_for_this_deployment() -> None:
    elsewhere = Signer(domain_of("test", "two", "hub"), bytes(32))
    of_hub, _ = HUB_SIGNER.seal(b"fact", NO_DIGEST)

    assert refusal_of(of_hub).startswith("expected the key of base, found ")
    assert refusal_of(seal(b"fact"), NOBODY).startswith("expected the key of nobody, found ")
    assert refusal_of(elsewhere.seal(b"fact", NO_DIGEST)[0]) == (
        "expected a frame of this deployment, found one of another"
    )
    # One who signs with a key of their own and says that it is another's.
    said = changed(of_hub, key=parts(seal(b"fact")).key)
    assert refusal_of(said) == "expected a signature of base, found another"


def test_the_largest_frame_that_may_be_sealed_is_the_largest_that_is_opened() -> None:
    around = len(seal(bytes(60_000))) - 60_000
    largest = bytes(SEALED_BYTES_MAX - around)

    assert VERIFIER.open(seal(largest), BASE).frame == largest
    with pytest.raises(FrameRefused, match="expected at most 61,440 bytes, found 61,441"):
        seal(largest + b"\0")
    too_long = changed(seal(largest), frame=largest + b"\0")
    assert refusal_of(too_long) == "expected at most 61,440 bytes, found 61,441"


@given(
    one=st.lists(st.text(max_size=5), max_size=3), other=st.lists(st.text(max_size=5), max_size=3)
)
@example(one=["ab", "c"], other=["a", "bc"])
@example(one=["a"], other=["a", ""])
def test_two_deployments_have_one_domain_only_if_all_their_names_are_the_same(
    one: list[str], other: list[str]
) -> None:
    assert (domain_of(*one) == domain_of(*other)) == (one == other)
    assert len(domain_of(*one)) == 16


# --- rows -------------------------------------------------------------------------------


def stream(count: int) -> list[bytes]:
    """Return the sealed frames of a stream, in order."""
    found, before = [], NO_DIGEST
    for number in range(count):
        sealed, before = SIGNER.seal(b"frame %d" % number, before)
        found.append(sealed)
    return found


def each(row: Sequence[bytes]) -> list[Sealed | str]:
    """Return what `open` says to each."""
    found: list[Sealed | str] = []
    for data in row:
        try:
            found.append(VERIFIER.open(data, BASE))
        except FrameRefused as error:
            found.append(str(error))
    return found


def at_once(row: Sequence[bytes], vouched: dict[bytes, bytes]) -> list[Sealed | str]:
    """Return what `open_row` says to each."""
    found = VERIFIER.open_row(row, BASE, vouched)
    assert len(vouched) <= VOUCHED_MAX
    return [str(one) if isinstance(one, FrameRefused) else one.sealed for one in found]


STREAM = [*stream(6), seal(b"outside"), seal(b"outside too")]  # the last two are of no row
AUTHENTIC = {(parts(data).before, parts(data).frame) for data in STREAM}
LINKED = {parts(data).before for data in STREAM} - {NO_DIGEST}


def attack(draw: Callable[[st.SearchStrategy[int]], int]) -> Iterator[bytes]:
    """Yield what one can make of a stream without its key, each of it linked to the rest."""
    known, digests = list(STREAM), [parts(data).digest() for data in STREAM]
    for _ in range(draw(st.integers(0, 8))):
        victim, other = (known[draw(st.integers(0, len(known) - 1))] for _ in range(2))
        link = [*digests, NO_DIGEST][draw(st.integers(0, len(digests)))]
        match draw(st.integers(0, 5)):
            case 0:  # another fact in a true frame's place
                forged = changed(victim, frame=b"forged %d" % draw(st.integers(0, 3)))
            case 1:  # a true frame behind another
                forged = changed(victim, before=link)
            case 2:  # a true signature on what it is not of
                forged = changed(victim, signature=parts(other).signature)
            case 3:  # all anew, signed with a key that is not the sender's
                own, _ = HUB_SIGNER.seal(b"forged", link)
                forged = changed(own, key=parts(victim).key)
            case 4:
                forged = victim[: draw(st.integers(0, len(victim)))]
            case _:
                forged, _ = HUB_SIGNER.seal(parts(victim).frame, link)
        yield forged
        if forged[:1] == victim[:1] and len(forged) > 200:
            known.append(forged)
            digests.append(parts(forged).digest())


@st.composite
def rows(draw: st.DrawFn, *, forged: bool) -> list[list[bytes]]:
    """Draw some rows of a stream, shuffled, with repeats and gaps, and forgeries between."""
    pool = STREAM + (list(attack(draw)) if forged else [])
    places = st.lists(st.integers(0, len(pool) - 1), max_size=12)
    return [[pool[place] for place in row] for row in draw(st.lists(places, max_size=4))]


@settings(max_examples=80, deadline=None)
@given(rows(forged=False))
def test_a_row_without_forgeries_opens_whole_whatever_its_order(taken: list[list[bytes]]) -> None:
    vouched: dict[bytes, bytes] = {}
    for row in taken:
        assert at_once(row, vouched) == each(row)
        assert LINKED.issuperset(vouched)


@settings(max_examples=250, deadline=None)
@given(rows(forged=True))
def test_nothing_that_the_sender_has_not_sealed_is_ever_let_pass(taken: list[list[bytes]]) -> None:
    vouched: dict[bytes, bytes] = {}
    for row in taken:
        for one, found in zip(each(row), at_once(row, vouched), strict=True):
            if isinstance(found, Sealed):
                assert (found.before, found.frame) in AUTHENTIC
                assert (found.domain, found.key) == (DOMAIN, parts(STREAM[0]).key)
                # Whatever one's own signature is good for, a row is good for too.
                assert found == one or one == "expected a signature of base, found another"
            else:
                assert found == one
        assert LINKED.issuperset(vouched)  # nothing forged is believed in a later row either


@pytest.mark.parametrize("place", range(3))
def test_a_copy_with_a_broken_signature_takes_nothing_from_the_true_one(place: int) -> None:
    broken = changed(STREAM[2], signature=NO_SIGNATURE)
    row = [broken, broken]
    row.insert(place, STREAM[2])

    found = at_once(row, {})

    assert found[place] == VERIFIER.open(STREAM[2], BASE)


def test_one_signature_vouches_for_all_before_it_and_for_none_after() -> None:
    whole = stream(40)
    bare = [changed(data, signature=NO_SIGNATURE) for data in whole]
    row = [*bare[:20], whole[20], *bare[21:]]

    found = at_once(row[::-1], {})[::-1]

    assert [isinstance(one, Sealed) for one in found] == [True] * 21 + [False] * 19


@given(
    st.permutations(
        [*[changed(data, signature=NO_SIGNATURE) for data in stream(9)[:-1]], stream(9)[-1]]
    )
)
def test_of_a_row_in_any_order_only_the_newest_signature_is_looked_at(row: list[bytes]) -> None:
    assert all(isinstance(one, Sealed) for one in at_once(row, {}))


def test_what_comes_later_is_vouched_for_by_what_came_before_it_but_only_if_that_was_true() -> None:
    whole = stream(3)
    unsigned = changed(whole[1], signature=NO_SIGNATURE)
    forged = changed(whole[2], frame=b"forged")  # it links to the second frame as the third does

    vouched: dict[bytes, bytes] = {}
    at_once([forged], vouched)
    assert isinstance(at_once([unsigned], vouched)[0], str)
    at_once([whole[2]], vouched)
    assert isinstance(at_once([unsigned], vouched)[0], Sealed)
    assert isinstance(at_once([changed(whole[0], signature=NO_SIGNATURE)], vouched)[0], Sealed)
    assert vouched == {}


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    known = [SIGNER.seal(b"%d" % number, NO_DIGEST) for number in range(VOUCHED_MAX + 2)]
    later = [seal(b"later", digest) for _, digest in known]
    vouched: dict[bytes, bytes] = {}
    for start in range(0, len(later), 500):
        at_once(later[start : start + 500], vouched)

    bare = [changed(known[place][0], signature=NO_SIGNATURE) for place in (0, 1, 2, -1)]
    found = at_once(bare, vouched)

    assert [isinstance(one, Sealed) for one in found] == [False, False, True, True]
    assert all(isinstance(one, Sealed) for one in at_once([known[0][0]], vouched))


# --- key files --------------------------------------------------------------------------


def input_refused(call: Callable[..., object], *words: object) -> str:
    with pytest.raises(InputRefused) as refused:
        call(*words)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "stack" / "keys"
    write_keys(folder, [BASE, HUB])
    return folder


def test_keys_on_disk_seal_and_open_for_their_own_nodes(keys: Path) -> None:
    verifier = read_verifier(keys, DOMAIN)
    for node, other in ((BASE, HUB), (HUB, BASE)):
        sealed, _ = read_signer(keys, node, DOMAIN).seal(b"fact", NO_DIGEST)
        assert verifier.open(sealed, node).frame == b"fact"
        refusal_of(sealed, other, verifier)


def test_private_keys_are_for_their_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_keys(tmp_path, [BASE, HUB])
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.key")} == {0o600}
    assert len({path.read_bytes() for path in tmp_path.glob("*.key")}) == 2


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666])
def test_a_key_that_others_may_touch_is_refused(keys: Path, mode: int) -> None:
    (keys / "base.key").chmod(mode)
    said = input_refused(read_signer, keys, BASE, DOMAIN)
    assert said == f"{keys}/base.key: expected mode 0600, found {mode:04o}"


def test_no_key_is_ever_overwritten(keys: Path) -> None:
    before = (keys / "hub.key").read_bytes()
    with pytest.raises(FileExistsError):
        write_keys(keys, [HUB])
    assert (keys / "hub.key").read_bytes() == before


def test_a_private_key_that_is_none_is_refused(keys: Path) -> None:
    said = input_refused(read_signer, keys, NOBODY, DOMAIN)
    assert said == f"{keys}/nobody.key: expected a private key, found No such file or directory"
    for seed in (b"", bytes(31), bytes(33)):
        (keys / "base.key").write_bytes(seed)
        said = input_refused(read_signer, keys, BASE, DOMAIN)
        assert said == f"{keys}/base.key: expected 32 bytes, found {len(seed)}"


@pytest.mark.parametrize(
    "text", [b"", b"00" * 31, b"00" * 33, b"g0" * 32, b"0" * 63, b"\xff\xfe" * 32]
)
def test_a_public_key_that_is_none_is_refused(keys: Path, text: bytes) -> None:
    (keys / "hub.pub").write_bytes(text)
    said = input_refused(read_verifier, keys, DOMAIN)
    assert said == f"{keys}/hub.pub: expected 64 hex digits, found something else"


def test_a_public_key_that_cannot_be_read_is_refused(keys: Path) -> None:
    (keys / "moon.pub").mkdir()
    assert "moon.pub: expected a public key, found " in input_refused(read_verifier, keys, DOMAIN)
