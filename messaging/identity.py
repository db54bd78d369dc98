"""Who says so: keys, seals around frames, and the chain that each stream of frames forms.

A seal wraps the bytes of a frame as they are (P13) with a signature over their digest and the
digest of the stream's frame before. So one valid signature vouches for all frames before it
that link up, and a reader of many verifies one. Rules P12, P13 and P16 of docs/protocol.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, NamedTuple, Self

import msgspec
from msgspec import Meta
from nacl.bindings import (
    crypto_sign,
    crypto_sign_BYTES,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import CryptoError

from messaging.codec import FRAME_BYTES_MAX, decode_event, decode_frame
from messaging.envelope import Envelope
from messaging.errors import FrameRefused, InputRefused
from messaging.link_control import KeyRotated
from messaging.node import Event
from messaging.rotation import FIRST_KEY, claim_of
from messaging.units import NodeId

NO_DIGEST = bytes(32)  # what the first frame of a stream links to, and one outside any
SEALED_BYTES_MAX = FRAME_BYTES_MAX
PURPOSE = b"omnimargin/v1/frame/"
KEY_PURPOSE = b"omnimargin/v1/key/"
VOUCHED_MAX = 2_048  # digests to remember of frames that have not come yet
_NOBODY = (NodeId(""), b"")

Digest32 = Annotated[bytes, Meta(min_length=32, max_length=32)]


class Link(NamedTuple):
    """What ties a frame into its stream: the digest before, its own, and whose word it is.

    Attributes:
        key: public key that signed it; FIRST_KEY if it is the one of the configuration.
    """

    before: bytes
    digest: bytes
    key: bytes = FIRST_KEY


class Sealed(
    msgspec.Struct,
    frozen=True,
    gc=False,
    array_like=True,
    tag="sealed.1",
    forbid_unknown_fields=True,
):
    """What stands on a topic.

    Attributes:
        domain: of the deployment; a frame of another one is refused (P16).
        key: first 8 bytes of SHA-256(public key).
        before: digest of the stream's frame before; zeros at the first and outside the row.
        frame: bytes of the frame.
        signature: Ed25519 over the digest of all of the above.
    """

    domain: Annotated[bytes, Meta(min_length=16, max_length=16)]
    key: Annotated[bytes, Meta(min_length=8, max_length=8)]
    before: Digest32
    frame: bytes
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]

    def digest(self) -> bytes:
        """Return what the signature is over."""
        return digest_of(self.domain, self.key, self.before, self.frame)

    def link(self) -> Link:
        """Return what ties the frame into its stream; it names no key."""
        return Link(self.before, self.digest())


class Opened(NamedTuple):
    """A sealed frame, and what ties it into its stream."""

    sealed: Sealed
    link: Link


def digest_of(domain: bytes, key: bytes, before: bytes, frame: bytes) -> bytes:
    """Return D = SHA-256(domain, key, before, SHA-256(frame)) (P12)."""
    return sha256(domain + key + before + sha256(frame).digest()).digest()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Sealed)
_SEALED = b"\x96\xa8sealed.1"  # how the bytes of a sealed frame begin


def read_entry(data: bytes) -> tuple[Event, Link | None]:
    """Return an event of a journal; a frame is there as it came, sealed, and has a link.

    Its signature was checked before it went into the journal; the link names no key.

    Raises:
        FrameRefused: neither a sealed frame nor an event of this version.
    """
    if not data.startswith(_SEALED):
        return decode_event(data), None
    sealed = read_sealed(data)
    return decode_frame(sealed.frame), sealed.link()


def read_sealed(data: bytes) -> Sealed:
    """Return a sealed frame whose signature has been checked before.

    Raises:
        FrameRefused: it is none.
    """
    try:
        return _decoder.decode(data)
    except (ValueError, RecursionError) as error:
        raise FrameRefused(f"expected a sealed frame, found {error}") from None


def domain_of(*parts: str) -> bytes:
    """Return 16 bytes that name a deployment (environment, deployment, hub)."""
    joined = b"".join(len(part).to_bytes(4) + part.encode() for part in parts)
    return sha256(joined).digest()[:16]


def key_id(public: bytes) -> bytes:
    """Return the 8 bytes that name a public key."""
    return sha256(public).digest()[:8]


class Signer:
    """One node's private key."""

    def __init__(self, domain: bytes, seed: bytes) -> None:
        self.domain = domain
        self.public, self._secret = crypto_sign_seed_keypair(seed)
        self._key = key_id(self.public)

    def digest(self, frame: bytes, before: bytes) -> bytes:
        """Return the digest that a seal around `frame` would have."""
        return digest_of(self.domain, self._key, before, frame)

    def seal(self, frame: bytes, before: bytes) -> tuple[bytes, bytes]:
        """Return the sealed frame, and its digest for the stream's next one.

        Raises:
            FrameRefused: it would be larger than any receiver accepts.
        """
        domain, key, digest = self.domain, self._key, self.digest(frame, before)
        sealed = _encoder.encode(Sealed(domain, key, before, frame, self._sign(digest)))
        if len(sealed) > SEALED_BYTES_MAX:
            raise FrameRefused(
                f"expected at most {SEALED_BYTES_MAX:,} bytes, found {len(sealed):,}"
            )
        return sealed, digest

    def vouch(self, claim: bytes) -> bytes:
        """Return the signature that brings this key into force in one channel (P67)."""
        return self._sign(claim, KEY_PURPOSE)

    def _sign(self, digest: bytes, purpose: bytes = PURPOSE) -> bytes:
        return crypto_sign(purpose + digest, self._secret)[:crypto_sign_BYTES]


class Retired(Signer):
    """A key whose private half is gone: it names what it has signed, and signs nothing more."""

    def __init__(self, domain: bytes, public: bytes) -> None:
        self.domain = domain
        self.public, self._secret = public, b""
        self._key = key_id(public)

    def _sign(self, digest: bytes, purpose: bytes = PURPOSE) -> bytes:
        raise InputRefused(f"key {self._key.hex()}", expected="its private half", found="none")


class Verifier:
    """The public keys of a deployment, and those that nodes have gone over to since (P67).

    It says whose a frame is, under any of a node's keys; which of them counts where a frame
    stands, only its channel knows (`messaging.heard`).
    """

    def __init__(self, domain: bytes, public: Mapping[NodeId, bytes]) -> None:
        self._domain = domain
        self._public = dict(public)
        self._keys = {node: key_id(key) for node, key in public.items()}
        self._later: dict[bytes, tuple[NodeId, bytes]] = {}

    def knowing(self, later: Iterable[tuple[NodeId, bytes]]) -> Self:
        """Return a copy that also knows these public keys, each with its node."""
        other = type(self)(self._domain, self._public)
        other._later = {key_id(public): (node, public) for node, public in later}
        return other

    def learn(self, frame: Envelope, word: KeyRotated) -> None:
        """Know the key that a frame brings into force from now on; the frame is authentic.

        Raises:
            FrameRefused: the new key has not signed for this very place.
        """
        public = word.public_key
        if word.effective_seq != frame.seq + 1:
            expected = f"effective number {frame.seq + 1}"
            raise FrameRefused(f"expected {expected}, found {word.effective_seq}")
        if not self._valid(public, word.proof, KEY_PURPOSE, claim_of(self._domain, frame, public)):
            raise FrameRefused("expected a proof by the new key, found another")
        self._later[key_id(public)] = (frame.sender, public)

    def open(self, data: bytes, sender: NodeId) -> Sealed:
        """Return a sealed frame of `sender`; its signature is valid.

        Raises:
            FrameRefused: not a sealed frame, of another deployment, or not signed by `sender`.
        """
        return self.open_linked(data, sender).sealed

    def open_linked(self, data: bytes, sender: NodeId) -> Opened:
        """Return what `open` does, and what ties the frame into its stream.

        Raises:
            FrameRefused: as `open`.
        """
        opened = self._read(data, sender)
        self._verify(opened, sender)
        return opened

    def open_row(
        self, row: Sequence[bytes], sender: NodeId, vouched: dict[bytes, bytes]
    ) -> list[Opened | FrameRefused]:
        """Return what `open_linked` would return or raise for each, verifying as few as can be.

        A frame is authentic if its signature is, or if an authentic frame of its stream links
        to its digest under the same key: an old key vouches for nothing under a new one.
        `vouched` holds digests that authentic frames have linked to and that have not been seen
        yet; it is kept from row to row, and bounded.
        """
        found: list[Opened | FrameRefused] = []
        copies: dict[bytes, list[tuple[int, Opened]]] = {}
        for place, data in enumerate(row):
            try:
                opened = self._read(data, sender)
                copies.setdefault(opened.link.digest, []).append((place, opened))
                found.append(opened)
            except FrameRefused as error:
                found.append(error)
        left = {digest: alike[0][1].sealed for digest, alike in copies.items()}
        linked = {sealed.before for sealed in left.values()}
        # Frames that nothing here links to come first: they vouch for the rest.
        for digest in sorted(left, key=linked.__contains__):
            sealed = left.pop(digest, None)
            if sealed is None:
                continue
            key, before = sealed.key, sealed.before
            if vouched.pop(digest, None) != key:
                refusal = self._refusal([opened for _, opened in copies[digest]], sender)
                if refusal is not None:
                    for place, _ in copies[digest]:
                        found[place] = refusal
                    continue
            while (sealed := left.get(before)) is not None and sealed.key == key:
                del left[before]
                before = sealed.before
            if before != NO_DIGEST:
                vouched[before] = key
        while len(vouched) > VOUCHED_MAX:
            del vouched[next(iter(vouched))]
        return found

    def _read(self, data: bytes, sender: NodeId) -> Opened:
        """Return what claims to be a sealed frame of `sender`, its signature not yet checked."""
        if len(data) > SEALED_BYTES_MAX:
            raise FrameRefused(f"expected at most {SEALED_BYTES_MAX:,} bytes, found {len(data):,}")
        try:
            sealed = _decoder.decode(data)
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            raise FrameRefused(f"expected a sealed frame, found {error}") from None
        if sealed.domain != self._domain:
            raise FrameRefused("expected a frame of this deployment, found one of another")
        key = FIRST_KEY
        if sealed.key != self._keys.get(sender):
            owner, key = self._later.get(sealed.key, _NOBODY)
            if owner != sender:
                raise FrameRefused(f"expected the key of {sender}, found {sealed.key.hex()}")
        return Opened(sealed, Link(sealed.before, sealed.digest(), key))

    def _refusal(self, copies: Iterable[Opened], sender: NodeId) -> FrameRefused | None:
        """Return why none of these copies of a frame is authentic, or None if one is."""
        refused = None
        for opened in copies:
            try:
                self._verify(opened, sender)
                return None
            except FrameRefused as error:
                refused = error
        return refused

    def _verify(self, opened: Opened, sender: NodeId) -> None:
        sealed, link = opened
        public = self._public[sender] if link.key == FIRST_KEY else link.key
        if not self._valid(public, sealed.signature, PURPOSE, link.digest):
            raise FrameRefused(f"expected a signature of {sender}, found another")

    def _valid(self, public: bytes, signature: bytes, purpose: bytes, digest: bytes) -> bool:
        try:
            crypto_sign_open(signature + purpose + digest, public)
        except CryptoError:
            return False
        return True
