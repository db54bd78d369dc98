"""Which of a node's keys signs which frame of a channel (P67).

A node goes over to a new key with one frame in each of its channels. All behind that frame,
whatever its version, is under the new key alone, all up to it under the one before.
"""

from hashlib import sha256

from messaging.envelope import Envelope
from messaging.lineage import Place
from messaging.messages import Family
from messaging.units import NodeId

FIRST_KEY = b""  # stands for the key that a deployment's configuration names


class Keys:
    """The keys of one channel, in the order in which they came into force."""

    __slots__ = ("_later",)

    def __init__(self) -> None:
        self._later: list[tuple[Place, bytes]] = []  # frame that said so, public key

    def at(self, place: Place) -> bytes:
        """Return the public key, or FIRST_KEY, that signs the frame at a place."""
        for said, public in reversed(self._later):
            if place > said:
                return public
        return FIRST_KEY

    def between(self, first: Place, last: Place) -> list[bytes]:
        """Return the key in force behind `first`, and those that come into force up to `last`."""
        now = self.at(Place(first.chan_epoch, first.seq + 1))
        return [now, *(public for said, public in self._later if first < said <= last)]

    @property
    def newest(self) -> bytes:
        """Return the public key, or FIRST_KEY, that came into force last."""
        return self._later[-1][1] if self._later else FIRST_KEY

    @property
    def said(self) -> Place | None:
        """Return the place of the newest frame that brought a new key into force."""
        return self._later[-1][0] if self._later else None

    @property
    def later(self) -> list[bytes]:
        """Return all public keys but the first."""
        return [public for _, public in self._later]

    def rotate(self, said: Place, public: bytes) -> None:
        """Let a key be in force behind a place."""
        self._later.append((said, public))


def claim(
    domain: bytes, channel: tuple[NodeId, NodeId, Family], said: Place, public: bytes
) -> bytes:
    """Return the digest that the new key signs: of all that names the one frame which says so.

    `channel` is (sender, receiver, family).
    """
    names = "/".join(channel).encode()
    where = said.chan_epoch.to_bytes(8) + (said.seq + 1).to_bytes(8)
    return sha256(domain + sha256(names).digest() + where + public).digest()


def claim_of(domain: bytes, frame: Envelope, public: bytes) -> bytes:
    """Return what the new key must have signed for a frame to bring it into force."""
    channel = (frame.sender, frame.receiver, frame.family)
    return claim(domain, channel, Place(frame.chan_epoch, frame.seq), public)
