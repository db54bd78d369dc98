"""Random and mutated bytes through the seal, the signature check and the decoder.

    python -m benchmarks.fuzz [--frames 10000000] [--jobs 2] [--seed 1]

Starts from frames that a run has really sent, sealed. Each is mutated (a bit changed, cut off,
joined with another, a piece repeated, a length made huge) or made of random bytes, then opened as
a reader would. Only FrameRefused may come out; memory may not grow. What still opens must be the
very bytes that were sent. Prints the refusals by kind, peak memory, and a digest of it all.
"""

import argparse
import random
import resource
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from hashlib import blake2b
from multiprocessing import get_context

import msgspec

from benchmarks.throughput import march_2020
from lab.swarm.keyed import Seals, signer_of, verifier_of
from lab.world import build
from messaging.codec import FRAME_BYTES_MAX, decode_event, decode_frame, encode_frame
from messaging.envelope import Envelope
from messaging.errors import FrameRefused
from messaging.identity import NO_DIGEST, Verifier
from messaging.units import HUB

HUGE = (b"\xdd\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff")
NESTED = (b"\x91" * 2_000, b"\x81\xa1a" * 2_000)


class Found(msgspec.Struct, kw_only=True):
    """What came of the frames.

    Attributes:
        opened: still the bytes that were sent. decoded: frames that the decoder alone took.
        peak_mb: most memory a process ever had.
    """

    frames: int = 0
    opened: int = 0
    decoded: int = 0
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    grown_mb: float = 0.0
    peak_mb: float = 0.0
    per_s: int = 0
    digest: str = ""


@cache
def sealed_frames() -> tuple[list[bytes], list[bytes], Verifier]:
    """Return frames of a run, one of each kind and more, and the same sealed by the hub."""
    kinds: Counter[str] = Counter()
    frames: list[bytes] = []
    for record in build(march_2020(12.0)).driver().run():
        for effect in record.effects:
            if type(effect) is Envelope and kinds[type(effect.message).__name__] < 40:
                kinds[type(effect.message).__name__] += 1
                frames.append(encode_frame(effect))
    signer = signer_of(HUB, Seals.REAL)
    sealed = [signer.seal(frame, NO_DIGEST)[0] for frame in frames]
    return frames, sealed, verifier_of({HUB: signer.public}, Seals.REAL)


def mutated(data: bytes, other: bytes, dice: random.Random) -> bytes:
    """Return bytes that something has happened to."""
    kind, where = dice.randrange(8), dice.randrange(len(data))
    if kind == 0:
        changed = bytearray(data)
        changed[where] ^= 1 << dice.randrange(8)
        return bytes(changed)
    if kind == 1:
        return data[:where]
    if kind == 2:
        return data + other[: dice.randrange(len(other))]
    if kind == 3:
        return data[:where] + dice.choice(HUGE) + data[where:]
    if kind == 4:
        until = dice.randrange(where, len(data)) + 1
        return data[:until] + data[where:]
    if kind == 5:
        return data[:where] + other[dice.randrange(len(other)) :]
    if kind == 6:
        return data[:where] + dice.choice(NESTED) + data[where:]
    return dice.randbytes(dice.choice((1, 16, 200, 2_000)))


def fuzz(count: int, seed: int) -> Found:
    """Open `count` mutated frames."""
    frames, sealed, verifier = sealed_frames()
    known, dice = {*sealed}, random.Random(seed)
    found, refused, digest = Found(), Counter[str](), blake2b(digest_size=16)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for number in range(count):
        rows = frames if number % 2 else sealed
        data = mutated(dice.choice(rows), dice.choice(rows), dice)
        try:
            if rows is sealed:
                verifier.open(data, HUB)
                assert data in known, f"opened what nobody has sealed: {data.hex()}"
                found.opened += 1
            else:
                decoded = decode_frame(data) if number % 4 == 1 else decode_event(data)
                assert len(data) <= FRAME_BYTES_MAX
                assert msgspec.msgpack.encode(decoded) == data
                found.decoded += 1
        except FrameRefused as error:
            refused[" ".join(str(error).split()[:4])] += 1
    found.frames = count
    found.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found.grown_mb = round(found.peak_mb - before_mb, 1)
    found.refused = dict(refused.most_common(12))
    digest.update(repr((found.opened, found.decoded, sorted(refused.items()))).encode())
    found.digest = digest.hexdigest()
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--frames", type=int, default=10_000_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began_s = time.perf_counter()
    share = given.frames // given.jobs
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        seeds = range(given.seed, given.seed + given.jobs)
        parts = list(pool.map(fuzz, [share] * given.jobs, seeds))
    refused: Counter[str] = Counter()
    for part in parts:
        refused.update(part.refused)
    frames = sum(part.frames for part in parts)
    whole = Found(
        frames=frames,
        opened=sum(part.opened for part in parts),
        decoded=sum(part.decoded for part in parts),
        refused=dict(refused.most_common()),
        grown_mb=max(part.grown_mb for part in parts),
        peak_mb=round(max(part.peak_mb for part in parts), 1),
        per_s=round(frames / (time.perf_counter() - began_s)),
        digest=blake2b("".join(part.digest for part in parts).encode(), digest_size=16).hexdigest(),
    )
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(whole)).decode() + "\n")


if __name__ == "__main__":
    main()
