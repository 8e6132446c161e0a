"""Single requests about one object, below the store's prefix."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from core.errors import NotFound, StoreUnavailable
from storage.interface import Span, Stored
from storage.reading import BLOCK_BYTES, check_span
from storage.s3.bodies import Download
from storage.s3.deadline import Deadline
from storage.s3.errors import PreconditionFailed
from storage.s3.service import Service

SHA256 = "sha256"
"""The metadata in which an object carries its hash."""
READ_BUFFER = 1 << 16


@dataclass(frozen=True)
class Objects:
    service: Service
    bucket: str
    prefix: str

    def name(self, key: str) -> str:
        return self.prefix + key

    def subject(self, key: str) -> str:
        return f"{self.service.name}: {key}"

    def look(self, key: str, deadline: Deadline, asked: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """
        Raises:
            NotFound: there is no such object, or no such bucket: a HEAD does not tell.
        """
        with self.service.call(self.subject(key), deadline) as client:
            return client.head_object(Bucket=self.bucket, Key=self.name(key), **(asked or {}))

    def head(self, key: str) -> Mapping[str, Any]:
        """
        Raises:
            NotFound: there is no such object, but there is the bucket.
        """
        deadline = self.service.deadline()
        try:
            return self.look(key, deadline)
        except NotFound:
            self._require_bucket(deadline)
            raise

    def open(self, key: str, span: Span | None = None) -> BinaryIO:
        return self._get(key, span)[1]

    def hash(self, key: str, deadline: Deadline) -> tuple[bytes, str]:
        """The SHA-256 of the bytes that are there, and the ETag that they have."""
        digest = hashlib.sha256()
        answer, body = self._get(key, None, deadline)
        with body:
            while block := body.read(BLOCK_BYTES):
                digest.update(block)
                deadline.check(self.subject(key))
        return digest.digest(), answer.get("ETag", "")

    def remove(self, key: str, etag: str, deadline: Deadline, *, conditional: bool) -> None:
        """Delete the object that has this ETag. Where the service knows conditions, one that somebody else has put in
        its place meanwhile stays."""
        condition: dict[str, Any] = {"IfMatch": etag} if conditional and etag else {}
        with suppress(PreconditionFailed, NotFound), self.service.call(self.subject(key), deadline) as client:
            client.delete_object(Bucket=self.bucket, Key=self.name(key), **condition)

    def _require_bucket(self, deadline: Deadline) -> None:
        try:
            with self.service.call(f"{self.service.name}: bucket {self.bucket}", deadline) as client:
                client.head_bucket(Bucket=self.bucket)
        except NotFound:
            raise StoreUnavailable(f"{self.service.name}: there is no bucket {self.bucket}") from None

    def _get(self, key: str, span: Span | None, deadline: Deadline | None = None) -> tuple[Mapping[str, Any], BinaryIO]:
        asked: dict[str, Any] = {}
        if span is not None:
            check_span(span)
            asked["Range"] = f"bytes={span.start}-" + ("" if span.stop is None else str(span.stop - 1))
        with self.service.call(self.subject(key), deadline) as client:
            answer = client.get_object(Bucket=self.bucket, Key=self.name(key), **asked)
        # Not the status: some services send the range with a 200 (seen: rclone 1.75).
        if span is not None and not answer.get("ContentRange", "").startswith(f"bytes {span.start}-"):
            answer["Body"].close()
            raise StoreUnavailable(f"{self.subject(key)}: the service ignores ranges")
        download = Download(answer["Body"], self.subject(key), self.service.breaker.failed)
        return answer, io.BufferedReader(download, READ_BUFFER)


def stored(key: str, answer: Mapping[str, Any]) -> Stored:
    """What a HEAD said."""
    return Stored(
        key=key,
        size=answer["ContentLength"],
        modified_at=answer["LastModified"],
        sha256=_digest(answer.get("Metadata", {})),
    )


def _digest(metadata: Mapping[str, str]) -> bytes | None:
    """Names of metadata are header fields, and services spell them in their own way."""
    said = next((value for name, value in metadata.items() if name.lower() == SHA256), "")
    with suppress(ValueError):
        digest = bytes.fromhex(said)
        return digest if len(digest) == 32 else None
    return None
