"""Whether a store does what the contract says, seen from outside: small objects are written, read and removed again.

Everything lies below `EXAMINED` and is removed at the end. What a killed or hanging examination left is removed by the
next one, once it is old enough to be no living one's.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import islice
from typing import Any
from uuid import uuid4

from core import clock
from core.errors import AlreadyExists, Corrupt, Forbidden, InvalidRange, NotFound, Unavailable
from core.findings import Check, Finding, note, ok, problem
from core.sections import KIB, MIB
from core.timings import measure
from storage.interface import ObjectStore, Span, Stored
from storage.links import fetch
from storage.object_keys import EXAMINED

LEFT_OVER = timedelta(hours=1)
SMALL = 20 * KIB
LARGEST = 64 * MIB
WRITERS = 8
SKEW_NOTED = timedelta(seconds=5)
SKEW_REFUSED = timedelta(minutes=5)
"""S3 refuses signatures that are 15 minutes off, and links end early by as much."""
LINK_LASTS = timedelta(minutes=1)
_THRESHOLDS = ("multipart_threshold", "large_object_threshold")
"""Options that say from which size on a body is written in another way."""
_SMALLEST_PARTS = {"multipart_threshold": 5 * MIB, "multipart_part_size": 5 * MIB}


def for_probing(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same store, with parts as small as S3 allows: what is tried is the way, and two parts of the configured size
    would take minutes over a slow line."""
    return {**options, **_SMALLEST_PARTS} if options.get("kind") == "s3" else options


class StoreProbe:
    def __init__(self, store: ObjectStore, options: Mapping[str, Any]) -> None:
        """`options` are the effective ones of the store, as `registry.describe` shows them."""
        self._store = store
        self._options = options
        self._own = f"{EXAMINED}{uuid4().hex}."
        self._used: list[str] = []
        self._small = random.randbytes(SMALL)
        self._written: Stored | None = None

    def checks(self) -> Sequence[Check]:
        return (
            Check("write", self._write, needed=True),
            Check("read", self._read),
            Check("create only", self._create_only),
            Check("one winner", self._one_winner, seconds=20),
            Check("range", self._range),
            Check("checksum", self._checksum),
            Check("missing key", self._missing),
            Check("listing", self._listing, seconds=20),
            Check("large body", self._large, seconds=60),
            Check("link", self._link, seconds=15),
            Check("clock", self._clock),
            Check("latency", self._latency, seconds=20),
        )

    def checks_of_reading(self, reason: str, advice: str | None) -> Sequence[Check]:
        """For a store that this process may not write to, for that reason."""
        said = note("write", f"{reason}, so only reading was looked at", advice)
        return (Check("write", lambda: said), Check("read", self._read_any, seconds=20))

    def clean_up(self) -> Finding:
        """Whatever happened before: nothing of ours stays, and deleting is seen to work."""
        keys = [*self._used, *self._left_over()]
        self._store.delete(keys)
        self._store.delete(keys[:1])  # once more: it must not matter
        for key in keys:
            try:
                self._store.head(key)
            except NotFound:
                continue
            return problem("delete", f"{key} is still there after it was deleted")
        return ok("delete", f"{len(keys)} probe objects removed")

    def _left_over(self) -> list[str]:
        oldest = clock.now() - LEFT_OVER
        return [found.key for found in self._store.scan(EXAMINED) if found.modified_at < oldest]

    def _key(self, name: str) -> str:
        """Noted before it is used, so that it is removed however the use ends."""
        key = self._own + name
        self._used.append(key)
        return key

    def _put(self, key: str, data: bytes, *, sha256: bytes | None = None) -> Stored:
        digest = sha256 or hashlib.sha256(data).digest()
        return self._store.put(
            key, io.BytesIO(data), size=len(data), sha256=digest, media_type="application/octet-stream"
        )

    def _get(self, key: str, span: Span | None = None) -> bytes:
        with self._store.open(key, span) as body:
            return body.read()

    def _write(self) -> Finding:
        self._written = self._put(self._key("small"), self._small)
        again = self._put(self._own + "small", self._small)
        if again.size != SMALL:
            return problem("write", f"the same bytes once more came back as {again.size} bytes instead of {SMALL}")
        return ok("write", "an object is written, and the same one once more counts as written")

    def _read(self) -> Finding:
        if self._get(self._own + "small") != self._small:
            return problem("read", "other bytes came back than were written", "do not use this store")
        found = self._store.head(self._own + "small")
        if found.size != SMALL:
            return problem("read", f"head says {found.size} bytes and {SMALL} were written")
        if found.sha256 is None:
            return ok("read", "the bytes come back; the store does not keep their SHA-256, PostgreSQL does")
        return ok("read", "the bytes come back, and their SHA-256 with them")

    def _read_any(self) -> Finding:
        found = next((one for one in islice(self._store.scan(), 100) if one.size <= LARGEST), None)
        if found is None:
            return ok("read", "nothing of a handy size is stored yet")
        digest = hashlib.sha256()
        with self._store.open(found.key) as body:
            while block := body.read(MIB):
                digest.update(block)
        if found.sha256 not in (None, digest.digest()):
            return problem("read", f"{found.key} has other bytes than were written")
        return ok("read", f"{found.key} is whole: {found.size:,} bytes")

    def _create_only(self) -> Finding:
        key = self._key("taken")
        self._put(key, self._small)
        try:
            self._put(key, random.randbytes(SMALL))
        except AlreadyExists:
            return ok("create only", "a key that is taken is refused")
        return problem(
            "create only",
            "a second write replaced the first: the service ignores If-None-Match",
            'set conditional_writes = "off" for this store: Millrace then looks before it writes',
        )

    def _one_winner(self) -> Finding:
        key = self._key("race")
        bodies = [bytes([number]) * SMALL for number in range(WRITERS)]

        def put(data: bytes) -> bool:
            try:
                self._put(key, data)
            except (AlreadyExists, Unavailable):
                return False
            return True

        with ThreadPoolExecutor(WRITERS) as pool:
            won = sum(pool.map(put, bodies))
        if won == 1:
            return ok("one winner", f"of {WRITERS} writers of one key at the same moment one succeeds")
        return note(
            "one winner",
            f"of {WRITERS} writers of one key at the same moment {won} were told that they succeeded",
            "nothing rests on it: Millrace never gives one key to different bytes",
        )

    def _range(self) -> Finding:
        key = self._own + "small"
        if self._get(key, Span(1000, 2000)) != self._small[1000:2000]:
            return problem("range", "a range brought other bytes than those asked for")
        if self._get(key, Span(SMALL - 7, SMALL + 1000)) != self._small[-7:]:
            return problem("range", "a range beyond the end was not cut at the end")
        try:
            self._get(key, Span(SMALL))
        except InvalidRange:
            return ok("range", "ranges are native, and one that starts at the end is refused")
        return problem("range", "a range that starts at the end was not refused")

    def _checksum(self) -> Finding:
        key = self._key("damaged")
        try:
            self._put(key, self._small, sha256=hashlib.sha256(b"something else").digest())
        except Corrupt:
            pass
        else:
            return problem("checksum", "bytes that are not what was promised were stored", "do not use this store")
        try:
            self._store.head(key)
        except NotFound:
            return ok("checksum", "bytes that are not what was promised are refused, and nothing of them stays")
        return problem("checksum", "a refused body left an object behind")

    def _missing(self) -> Finding:
        try:
            self._store.head(self._own + "never-written")
        except NotFound:
            return ok("missing key", "is told apart from a refusal and from an outage")
        except Forbidden:
            return problem(
                "missing key",
                "the store answers 403 for a key that does not exist",
                "grant the right to list the bucket (s3:ListBucket): without it lost objects cannot be seen",
            )
        return problem("missing key", "a key that was never written is said to exist")

    def _listing(self) -> Finding:
        found = [one.key for one in self._store.scan(self._own)]
        if self._own + "small" in found and found == sorted(found):
            return ok("listing", "what was just written is listed, in key order")
        return problem("listing", "what was just written is not listed, or not in key order")

    def _large(self) -> Finding:
        threshold = next((int(self._options[name]) for name in _THRESHOLDS if self._options.get(name)), None)
        if threshold is None:
            return ok("large body", "is written in the same way as a small one")
        if threshold >= LARGEST:
            return note("large body", f"not tried: it would take more than {LARGEST // MIB} MiB")
        data = random.randbytes(threshold + 1)
        key = self._key("large")
        took = measure(lambda _: self._put(key, data), rounds=1, seconds=0).total
        if self._get(key, Span(threshold - 5)) != data[-6:]:
            return problem("large body", "a range of a body in parts brought other bytes")
        if hashlib.sha256(self._get(key)).digest() != hashlib.sha256(data).digest():
            return problem("large body", "a body in parts came back with other bytes", "do not use this store")
        rate = len(data) / took / 1e6
        return ok("large body", f"{len(data):,} bytes, which go in parts, at {rate:.1f} MB/s", large_put_mb_per_s=rate)

    def _link(self) -> Finding:
        link = self._store.url(self._own + "small", ttl=LINK_LASTS)
        if link is None:
            return ok("link", "this store gives none: Millrace serves the bytes itself")
        if fetch(link) != self._small:
            self._get(self._own + "small")  # says so, if they lie in an archive
            return problem(
                "link", "a signed link did not bring the bytes", "check that endpoint_url can be reached from here"
            )
        if fetch(link[:-4] + ("aaaa" if link[-4:] != "aaaa" else "bbbb")) is not None:
            return note("link", "works, but the service does not check its signature: everybody can forge one")
        return ok("link", "a signed link works without credentials, a forged one does not")

    def _clock(self) -> Finding:
        stored = self._put(self._key("clock"), self._small)
        skew = stored.modified_at - clock.now()
        seconds = skew.total_seconds()
        if abs(skew) > SKEW_REFUSED:
            return problem("clock", f"differs from this host's by {seconds:+.0f} s", "run NTP on both", skew_s=seconds)
        if abs(skew) > SKEW_NOTED:
            return note("clock", f"differs from this host's by {seconds:+.0f} s", "run NTP on both", skew_s=seconds)
        return ok("clock", "agrees with this host's", skew_s=seconds)

    def _latency(self) -> Finding:
        names = [self._key(f"latency-{number}") for number in range(20)]
        put = measure(lambda number: self._put(names[number], self._small), rounds=len(names), seconds=4)
        get = measure(lambda _: self._get(names[0]), rounds=20, seconds=4)
        return ok(
            "latency",
            f"{SMALL // KIB} KiB: put p50 {put.p50_ms:.1f} ms, p99 {put.p99_ms:.1f} ms;"
            f" get p50 {get.p50_ms:.1f} ms, p99 {get.p99_ms:.1f} ms",
            put_p50_ms=put.p50_ms,
            put_p99_ms=put.p99_ms,
            get_p50_ms=get.p50_ms,
            get_p99_ms=get.p99_ms,
        )
