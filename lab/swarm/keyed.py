"""Signatures for runs in bulk: signer and digest in the place of Ed25519, at no cost.

They bind the same bytes to the same name, so everything but the curve is the live code; nobody in
a swarm is clever enough to write another's name. Each seed of a hundred uses the real one.
"""

from collections.abc import Mapping
from copy import copy
from enum import StrEnum
from functools import cache
from hashlib import blake2b, sha256

from messaging.identity import PURPOSE, Opened, Signer, Verifier, domain_of, key_id
from messaging.units import HUB, NodeId

DOMAIN = domain_of("swarm", "swarm", HUB)


def _mark(public: bytes, purpose: bytes, digest: bytes) -> bytes:
    """Return 64 bytes that say who signed what; who cheats in a swarm cannot write them."""
    return public + (digest if purpose is PURPOSE else sha256(purpose + digest).digest())


class KeyedSigner(Signer):
    """Signs with what stands for its public key; nobody in a simulation looks that up."""

    def _sign(self, digest: bytes, purpose: bytes = PURPOSE) -> bytes:
        return _mark(self.public, purpose, digest)


class KeyedVerifier(Verifier):
    """Checks what `KeyedSigner` has signed."""

    def _valid(self, public: bytes, signature: bytes, purpose: bytes, digest: bytes) -> bool:
        return signature == _mark(public, purpose, digest)


class UncheckedVerifier(Verifier):
    """Checks everything but the signature."""

    def _verify(self, opened: Opened, sender: NodeId) -> None:
        pass

    def _valid(self, public: bytes, signature: bytes, purpose: bytes, digest: bytes) -> bool:
        return True


class Seals(StrEnum):
    """What stands in the place of a signature."""

    REAL = "real"
    KEYED = "keyed"
    UNCHECKED = "unchecked"


@cache  # a campaign has the same few names in every seed
def signer_of(name: NodeId, seals: Seals, number: int = 1) -> Signer:
    """Return the signer of a name's first key, or of a later one, the same in every run."""
    named = name if number == 1 else f"{name}/{number}"
    seed = blake2b(named.encode(), digest_size=32).digest()
    return (Signer if seals is Seals.REAL else KeyedSigner)(DOMAIN, seed)


def impostor_of(name: NodeId, victim: NodeId, seals: Seals) -> Signer:
    """Return the signer of a name that writes another's key on what it signs."""
    impostor = copy(signer_of(name, seals))
    impostor._key = key_id(signer_of(victim, seals).public)
    return impostor


def verifier_of(public: Mapping[NodeId, bytes], seals: Seals) -> Verifier:
    """Return what knows these public keys."""
    kinds = {
        Seals.REAL: Verifier,
        Seals.KEYED: KeyedVerifier,
        Seals.UNCHECKED: UncheckedVerifier,
    }
    return kinds[seals](DOMAIN, public)
