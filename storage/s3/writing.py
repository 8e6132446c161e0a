"""How an object comes to be: created once, all or nothing, and not believed before its checksum is known.

Creation is conditional (`If-None-Match: *`), so a key is never written twice where the service honours that; where it
does not, the key is looked for first, and the second of two that race brings the same bytes, since keys are made from
them. What an answer leaves open (412 or 409 after a request was repeated, an upload that is gone) is settled by looking
at the object: its size, the SHA-256 in its metadata, and the service's checksum or its bytes.

A process may die between writing and reading back. So whoever finds the key taken checks the bytes as if they were its
own; an object that promises our hash and holds other bytes is debris, which is deleted and made again. What went into
an archive cannot be read back: there only the service's checksum counts, and a taken key without one is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from random import uniform
from typing import Any, BinaryIO

from core import clock
from core.errors import AlreadyExists, Archived, MillraceError, NotFound, StoreUnavailable
from core.failpoints import failpoint
from storage.interface import Stored
from storage.s3.bodies import outgoing, read_whole, rewindable
from storage.s3.checksums import Checksums, Md5, Sha256
from storage.s3.deadline import Deadline
from storage.s3.errors import ConditionalConflict, Damaged, NoSuchUpload, PreconditionFailed, Unsupported
from storage.s3.multipart import MultipartUpload, part_lengths
from storage.s3.objects import SHA256, Objects, stored
from storage.s3.options import S3Options

TRIES = 4


@dataclass(frozen=True)
class Wanted:
    key: str
    size: int
    sha256: bytes
    media_type: str


@dataclass(frozen=True)
class Sent:
    """An object that is there now. `digest` is what the service's checksum must be."""

    answer: Mapping[str, Any]
    digest: bytes
    in_parts: bool


class Writer:
    def __init__(self, objects: Objects, options: S3Options) -> None:
        self._objects = objects
        self._service = objects.service
        self._options = options
        self._checksums: Checksums = Sha256() if options.checksum == "sha256" else Md5()
        self._conditional = options.conditional_writes == "auto"

    @property
    def condition(self) -> Mapping[str, Any]:
        return {"IfNoneMatch": "*"} if self._conditional else {}

    def put(self, wanted: Wanted, body: BinaryIO) -> Stored:
        failure: MillraceError | None = None
        with self._sending(wanted, body) as send:
            deadline = self._service.deadline(wanted.size)  # from now on: a small body has come by then
            for attempt in range(TRIES):
                if attempt:
                    time.sleep(uniform(0.05, 0.1) * 2**attempt)
                try:
                    there = None if self._conditional else self._find(wanted, deadline)
                    return there or self._create(wanted, send, deadline)
                except (PreconditionFailed, NoSuchUpload) as error:
                    failure = error
                    if there := self._find(wanted, deadline):
                        return there
                except (ConditionalConflict, Damaged, NotFound) as error:
                    failure = error  # NotFound: somebody deleted it as debris before it was read back
                except Unsupported as error:
                    failure = error
                    if not self._conditional:
                        raise
                    self._conditional = False
        raise StoreUnavailable(f"{self._objects.subject(wanted.key)}: {TRIES} tries, the last: {failure}") from failure

    @contextmanager
    def _sending(self, wanted: Wanted, body: BinaryIO) -> Iterator[Callable[[Deadline], Sent]]:
        """What sends the body from its start, however often."""
        if wanted.size <= self._options.multipart_threshold:
            whole = read_whole(body, size=wanted.size, sha256=wanted.sha256)
            yield partial(self._send_whole, wanted, whole)
            return
        with rewindable(body) as rewound:
            yield lambda deadline: self._send_parts(wanted, rewound(), deadline)

    def _create(self, wanted: Wanted, send: Callable[[Deadline], Sent], deadline: Deadline) -> Stored:
        sent = send(deadline)
        failpoint("s3.after-put", wanted.key)
        if not self._is_vouched_for(wanted, sent, deadline):
            try:
                digest, etag = self._objects.hash(wanted.key, deadline)
            except Archived:
                subject = self._objects.subject(wanted.key)
                raise StoreUnavailable(f"{subject}: in an archive, and the service told no checksum of it") from None
            if digest != wanted.sha256:
                self._objects.remove(wanted.key, etag, deadline, conditional=self._conditional)
                raise Damaged(f"{self._objects.subject(wanted.key)}: other bytes arrived than were sent")
        return Stored(wanted.key, wanted.size, answered_at(sent.answer), wanted.sha256)

    def _send_whole(self, wanted: Wanted, whole: memoryview, deadline: Deadline) -> Sent:
        digest = self._checksums.whole(whole, wanted.sha256)
        failpoint("s3.before-put", wanted.key)
        with self._service.call(self._objects.subject(wanted.key), deadline) as client:
            answer = client.put_object(
                Bucket=self._objects.bucket,
                Key=self._objects.name(wanted.key),
                Body=outgoing(whole, deadline),
                **self._checksums.sent(digest),
                **self.condition,
                **self._said_of(wanted),
            )
        return Sent(answer, digest, in_parts=False)

    def _send_parts(self, wanted: Wanted, body: BinaryIO, deadline: Deadline) -> Sent:
        options = self._options
        lengths = part_lengths(wanted.size, options.multipart_part_size, uniform=options.uniform_parts)
        said = {**self._said_of(wanted), **self._checksums.upload}
        name = self._objects.name(wanted.key)
        with MultipartUpload.begun(self._service, self._objects.bucket, name, deadline, said) as upload:
            sums = self._checksums
            parts = upload.send(body, lengths, sha256=wanted.sha256, jobs=options.multipart_jobs, checksums=sums)
            answer = upload.complete(parts, self.condition)
        return Sent(answer, sums.composite(part.digest for part in parts), in_parts=True)

    def _said_of(self, wanted: Wanted) -> dict[str, Any]:
        said: dict[str, Any] = {"ContentType": wanted.media_type, "Metadata": {SHA256: wanted.sha256.hex()}}
        if self._options.storage_class:
            said["StorageClass"] = self._options.storage_class
        return said

    def _is_vouched_for(self, wanted: Wanted, sent: Sent, deadline: Deadline) -> bool:
        if self._options.verify == "readback":
            return False
        if self._checksums.vouches(sent.answer, sent.digest):
            return True
        if not (sent.in_parts and self._checksums.look):
            return False
        return self._checksums.vouches(self._objects.look(wanted.key, deadline, self._checksums.look), sent.digest)

    def _find(self, wanted: Wanted, deadline: Deadline) -> Stored | None:
        """The object that has the key, if it is the wanted one; None: the key is free.

        Raises:
            AlreadyExists: it is another.
        """
        with suppress(NotFound):
            return self._examine(wanted, deadline)
        return None

    def _examine(self, wanted: Wanted, deadline: Deadline) -> Stored | None:
        answer = self._objects.look(wanted.key, deadline, self._checksums.look)
        there = stored(wanted.key, answer)
        if there.size != wanted.size or there.sha256 not in (None, wanted.sha256):
            raise AlreadyExists(f"{wanted.key} holds other bytes")
        if self._options.verify == "store" and self._checksums.vouches_for_other(answer, wanted.sha256):
            return there
        try:
            digest, etag = self._objects.hash(wanted.key, deadline)
        except Archived:
            raise AlreadyExists(f"{wanted.key} is in an archive, and nobody vouches for its bytes") from None
        if digest == wanted.sha256:
            return there
        if there.sha256 is None:
            raise AlreadyExists(f"{wanted.key} holds other bytes")
        self._objects.remove(wanted.key, etag, deadline, conditional=self._conditional)
        return None


def answered_at(answer: Mapping[str, Any]) -> datetime:
    """By the service's clock, as a listing would say it."""
    said = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    with suppress(ValueError, TypeError):
        return parsedate_to_datetime(said).astimezone(UTC)
    return clock.now()
