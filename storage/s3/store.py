"""Objects in an S3 bucket, or in anything that speaks its protocol.

Creation is conditional (`If-None-Match: *`), so a key is never written twice where the service honours that; where it
does not, the second writer brings the same bytes, since keys are made from them. An object carries its SHA-256 as
metadata, and `head` tells it. The right to list the bucket is needed: without it S3 answers 403 for a missing key.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import islice
from random import uniform
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from core.breaker import BreakerState
from core.errors import AlreadyExists, Forbidden, NotFound, StoreUnavailable
from core.failpoints import failpoint
from storage.interface import ObjectStore, Span, Stored
from storage.object_keys import is_legal, require_legal
from storage.reading import check_span, verified_blocks
from storage.s3.errors import ConditionalConflict, NoSuchUpload, PreconditionFailed, translated
from storage.s3.multipart import MultipartUpload, part_size
from storage.s3.options import S3Options, make_client

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

TRIES = 4
DELETE_BATCH = 1000
LONGEST_URL = timedelta(days=7)
"""What a signature of version 4 may last at most."""

_SHA256 = "sha256"


class S3Store:
    def __init__(self, name: str, options: S3Options) -> None:
        self.name = name
        self._options = options
        self._bucket = options.bucket
        self._prefix = options.key_prefix
        self._made: S3Client | None = None
        self._making = Lock()

    @property
    def breaker(self) -> BreakerState:
        return "closed"

    def put(self, key: str, body: BinaryIO, *, size: int, sha256: bytes, media_type: str) -> Stored:
        require_legal(key)
        start = body.tell() if body.seekable() else None
        for attempt in range(TRIES):
            try:
                return self._create(key, body, size, sha256, media_type)
            except (PreconditionFailed, NoSuchUpload) as error:
                found = self._taken_by(key, size, sha256)
                if found:
                    return found
                failure: StoreUnavailable = error
            except ConditionalConflict as error:
                failure = error
            if start is None:
                raise failure  # what is read is gone; the caller has it still
            body.seek(start)
            time.sleep(uniform(0.05, 0.1) * 2**attempt)
        raise StoreUnavailable(f"{self.name}: others keep writing {key}")

    def open(self, key: str, span: Span | None = None) -> AbstractContextManager[BinaryIO]:
        require_legal(key)
        if span is None:
            with translated(self._subject(key)):
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            return io.BufferedReader(_Download(answer["Body"], self._subject(key)), 1 << 16)
        check_span(span)
        asked = f"bytes={span.start}-" + ("" if span.stop is None else str(span.stop - 1))
        with translated(self._subject(key)):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, Range=asked)
        if answer["ResponseMetadata"]["HTTPStatusCode"] != 206:
            answer["Body"].close()
            raise StoreUnavailable(f"{self._subject(key)}: the service ignores ranges")
        return io.BufferedReader(_Download(answer["Body"], self._subject(key)), 1 << 16)

    def head(self, key: str) -> Stored:
        require_legal(key)
        try:
            with translated(self._subject(key)):
                answer = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        except NotFound:
            self._require_bucket()
            raise
        return Stored(
            key=key,
            size=answer["ContentLength"],
            modified_at=answer["LastModified"],
            sha256=_digest(answer.get("Metadata", {})),
        )

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[Stored]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket,
            Prefix=self._prefix + prefix,
            StartAfter=(self._prefix + after) if after else "",
        )
        with translated(f"{self.name}: scan"):
            for page in pages:
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self._prefix)
                    if is_legal(key):
                        yield Stored(key=key, size=item["Size"], modified_at=item["LastModified"])

    def delete(self, keys: Iterable[str]) -> None:
        rest = iter(keys)
        while batch := list(islice(rest, DELETE_BATCH)):
            for key in batch:
                require_legal(key)
            with translated(f"{self.name}: delete"):
                answer = self._client.delete_objects(
                    Bucket=self._bucket,
                    Delete={"Objects": [{"Key": self._prefix + key} for key in batch], "Quiet": True},
                )
            self._require_deleted(answer.get("Errors", ()))

    def copy_from(self, source: ObjectStore, key: str) -> Stored | None:
        del source
        require_legal(key)
        return None

    def url(self, key: str, *, ttl: timedelta, download_name: str | None = None) -> str | None:
        require_legal(key)
        wanted = {"Bucket": self._bucket, "Key": self._prefix + key}
        if download_name is not None:
            wanted["ResponseContentDisposition"] = _attachment(download_name)
        with translated(self._subject(key)):
            return self._client.generate_presigned_url(
                "get_object", Params=wanted, ExpiresIn=max(1, int(min(ttl, LONGEST_URL).total_seconds()))
            )

    def sweep_unfinished(self) -> int:
        """Multipart uploads below our own prefix that began before `multipart_upload_timeout`."""
        oldest = datetime.now(UTC) - timedelta(seconds=self._options.multipart_upload_timeout)
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=self._prefix)
        aborted = 0
        with translated(f"{self.name}: sweep"):
            for page in pages:
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"] < oldest:
                        self._client.abort_multipart_upload(
                            Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                        aborted += 1
        return aborted

    def close(self) -> None:
        with self._making:
            if self._made:
                self._made.close()
            self._made = None

    @property
    def _client(self) -> S3Client:
        """Made on first use, so that opening the stores costs nothing and no connection is shared over a fork."""
        with self._making:
            if self._made is None:
                self._made = make_client(self.name, self._options)
            return self._made

    def _create(self, key: str, body: BinaryIO, size: int, sha256: bytes, media_type: str) -> Stored:
        name, metadata = self._prefix + key, {_SHA256: sha256.hex()}
        if size > self._options.multipart_threshold:
            block = part_size(size, self._options.multipart_part_size)
            upload = MultipartUpload(self._client, self._bucket, name, self._options.multipart_jobs)
            blocks = verified_blocks(body, size=size, sha256=sha256, block=block)
            answer = upload.send(blocks, media_type=media_type, metadata=metadata)
        else:
            whole = b"".join(verified_blocks(body, size=size, sha256=sha256, block=max(size, 1)))
            failpoint("s3.before-put", key)
            with translated(self._subject(key)):
                answer = self._client.put_object(
                    Bucket=self._bucket,
                    Key=name,
                    Body=whole,
                    ContentType=media_type,
                    ChecksumSHA256=base64.b64encode(sha256).decode(),
                    IfNoneMatch="*",
                    Metadata=metadata,
                )
        failpoint("s3.after-put", key)
        return Stored(key=key, size=size, modified_at=_answered_at(answer), sha256=sha256)

    def _taken_by(self, key: str, size: int, sha256: bytes) -> Stored | None:
        """The object that has the key, if it is the wanted one; None: it is gone by now."""
        try:
            found = self.head(key)
        except NotFound:
            return None
        if found.size != size or found.sha256 not in (None, sha256):
            raise AlreadyExists(f"{key} holds other bytes")
        return found

    def _require_bucket(self) -> None:
        """A HEAD answers 404 for a missing bucket too, and that must not look like a lost object."""
        try:
            with translated(f"{self.name}: bucket {self._bucket}"):
                self._client.head_bucket(Bucket=self._bucket)
        except NotFound:
            raise StoreUnavailable(f"{self.name}: there is no bucket {self._bucket}") from None

    def _require_deleted(self, errors: Iterable[Mapping[str, Any]]) -> None:
        for error in errors:
            code = error.get("Code", "")
            if code in ("NoSuchKey", "NotFound"):
                continue
            kind = Forbidden if code == "AccessDenied" else StoreUnavailable
            raise kind(f"{self.name}: delete {error.get('Key', '')}: {code} {error.get('Message', '')}")

    def _subject(self, key: str) -> str:
        return f"{self.name}: {key}"


class _Download(io.RawIOBase):
    """The answer's body; a connection that breaks or stalls is `StoreUnavailable` and never a short object."""

    def __init__(self, body: StreamingBody, subject: str) -> None:
        self._body = body
        self._subject = subject

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")
        with translated(self._subject):
            data = self._body.read(len(target))
        target[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._body.close()
        super().close()


def _digest(metadata: Mapping[str, str]) -> bytes | None:
    with suppress(ValueError):
        digest = bytes.fromhex(metadata.get(_SHA256, ""))
        return digest if len(digest) == 32 else None
    return None


def _answered_at(answer: Mapping[str, Any]) -> datetime:
    """By the service's clock, as a listing would say it."""
    said = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    with suppress(ValueError, TypeError):
        return parsedate_to_datetime(said).astimezone(UTC)
    return datetime.now(UTC)


def _attachment(name: str) -> str:
    """RFC 6266: the real name for all that know UTF-8, a harmless one for the rest."""
    plain = "".join(sign if sign.isascii() and (sign.isalnum() or sign in " ._-()") else "_" for sign in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
