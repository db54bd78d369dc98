"""Seals around the frames of a run in virtual time, as the durable nodes of its senders make."""

from collections.abc import Iterable

from messaging.codec import encode_frame
from messaging.envelope import Envelope
from messaging.identity import NO_DIGEST, Link, Signer, domain_of
from messaging.messages import CHANNEL_FAMILIES
from messaging.record import Record
from messaging.topics import topic_of

DOMAIN = domain_of("test", "seals")
SIGNER = Signer(DOMAIN, bytes(32))


class Seals:
    """Each frame that was sent, sealed once; a resend is the same bytes (P14)."""

    def __init__(self, records: Iterable[Record], signer: Signer = SIGNER) -> None:
        self._made: dict[Envelope, tuple[bytes, Link]] = {}
        self._signer = signer
        newest: dict[str, bytes] = {}
        for record in records:
            for frame in record.effects:
                if isinstance(frame, Envelope) and frame not in self._made:
                    topic = topic_of(frame)
                    chained = frame.seq and frame.family in CHANNEL_FAMILIES
                    before = newest.get(topic, NO_DIGEST) if chained else NO_DIGEST
                    _, link = self._made[frame] = self._seal(frame, before)
                    if chained:
                        newest[topic] = link.digest

    def of(self, frame: Envelope) -> tuple[bytes, Link]:
        """Return a frame's bytes and its link; one from outside the run stands alone."""
        return self._made.get(frame) or self._seal(frame, NO_DIGEST)

    def _seal(self, frame: Envelope, before: bytes) -> tuple[bytes, Link]:
        data, digest = self._signer.seal(encode_frame(frame), before)
        return data, Link(before, digest)
