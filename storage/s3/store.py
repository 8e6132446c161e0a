"""Objects in an S3 bucket, or in anything that speaks its protocol.

An object carries its SHA-256 as metadata, and `head` tells it. The right to list the bucket is needed: without it S3
answers 403 for a missing key. How objects are written is in storage/s3/writing.py, how requests are sent, repeated and
given up in storage/s3/service.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from core.breaker import BreakerState
from core.errors import Forbidden, MillraceError, StoreUnavailable
from storage.backend import Backend
from storage.interface import ObjectStore, Span, Stored
from storage.object_keys import is_legal, is_ours, require_legal
from storage.s3.archive import restore
from storage.s3.copying import Copier
from storage.s3.errors import NoSuchUpload, translated
from storage.s3.objects import Objects, stored
from storage.s3.options import S3Options
from storage.s3.service import Service
from storage.s3.writing import Wanted, Writer, answered_at

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DELETE_BATCH = 1000
LONGEST_URL = timedelta(days=7)
"""What a signature of version 4 may last at most."""


class S3Store:
    def __init__(self, name: str, options: S3Options) -> None:
        self.name = name
        self._options = options
        self._service = Service(name, options)
        self.objects = Objects(self._service, options.bucket, options.key_prefix)
        self._writer = Writer(self.objects, options)
        self._copier = Copier(self.objects, options)

    @property
    def breaker(self) -> BreakerState:
        return self._service.breaker.state

    def establish(self) -> None:
        """Do nothing: a bucket is made by a person, who says where and for whom."""

    def put(self, key: str, body: BinaryIO, *, size: int, sha256: bytes, media_type: str) -> Stored:
        require_legal(key)
        return self._writer.put(Wanted(key, size, sha256, media_type), body)

    def open(self, key: str, span: Span | None = None) -> AbstractContextManager[BinaryIO]:
        require_legal(key)
        return self.objects.open(key, span)

    def head(self, key: str) -> Stored:
        require_legal(key)
        return stored(key, self.objects.head(key))

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[Stored]:
        pages = iter(
            self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.objects.bucket,
                Prefix=self.objects.name(prefix),
                StartAfter=self.objects.name(after) if after else "",
            )
        )
        while page := self._next(pages, "scan"):
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(self.objects.prefix)
                if is_legal(key):
                    yield Stored(key=key, size=item["Size"], modified_at=item["LastModified"])

    def delete(self, keys: Iterable[str]) -> None:
        rest = iter(keys)
        while batch := list(islice(rest, DELETE_BATCH)):
            for key in batch:
                require_legal(key)
            with self._service.call(f"{self.name}: delete") as client:
                answer = client.delete_objects(
                    Bucket=self.objects.bucket,
                    Delete={"Objects": [{"Key": self.objects.name(key)} for key in batch], "Quiet": True},
                )
            self._require_deleted(answer.get("Errors", ()))

    def copy_from(self, source: ObjectStore, source_key: str, key: str) -> Stored | None:
        require_legal(source_key)
        require_legal(key)
        if not isinstance(source, S3Store) or source.objects.service.account != self._service.account:
            return None
        if self._options.archives:
            return None  # nobody could read such a copy back, and of a body that is sent the service checks the hash
        return self._copier.copy(source.objects, source_key, key, self._writer.condition)

    def url(self, key: str, *, ttl: timedelta, download_name: str | None = None) -> str | None:
        require_legal(key)
        wanted = {"Bucket": self.objects.bucket, "Key": self.objects.name(key)}
        if download_name is not None:
            wanted["ResponseContentDisposition"] = _attachment(download_name)
        with translated(self.objects.subject(key)):
            return self._client.generate_presigned_url(
                "get_object", Params=wanted, ExpiresIn=max(1, int(min(ttl, LONGEST_URL).total_seconds()))
            )

    def restore(self, key: str) -> int:
        require_legal(key)
        return restore(self.objects, key, self._options)

    def sweep_unfinished(self) -> int:
        """Multipart uploads under keys of ours that began before `multipart_upload_timeout`: the bucket may be shared.
        One that cannot be aborted does not keep the others; its error is raised at the end."""
        lister = self._client.get_paginator("list_multipart_uploads")
        pages = iter(lister.paginate(Bucket=self.objects.bucket, Prefix=self.objects.prefix))
        aborted = 0
        failure: MillraceError | None = None
        while page := self._next_uploads(pages):
            oldest = answered_at(page) - timedelta(seconds=self._options.multipart_upload_timeout)
            for upload in page.get("Uploads", ()):
                ours = is_ours(upload["Key"].removeprefix(self.objects.prefix))
                if upload["Initiated"] >= oldest or not ours:
                    continue
                try:
                    self._abort(upload["Key"], upload["UploadId"])
                    aborted += 1
                except NoSuchUpload:
                    continue  # another sweep, or the service itself
                except MillraceError as error:
                    failure = error
        if failure:
            raise failure
        return aborted

    def close(self) -> None:
        self._service.close()

    @property
    def _client(self) -> S3Client:
        return self._service.client

    def _next(self, pages: Iterator[Any], what: str) -> Mapping[str, Any] | None:
        with self._service.call(f"{self.name}: {what}"):
            page: Mapping[str, Any] | None = next(pages, None)
            return page

    def _next_uploads(self, pages: Iterator[Any]) -> Mapping[str, Any] | None:
        try:
            return self._next(pages, "sweep")
        except NoSuchUpload:  # said instead of an empty list (seen: rclone 1.75)
            return None

    def _abort(self, name: str, upload_id: str) -> None:
        with self._service.call(f"{self.name}: sweep") as client:
            client.abort_multipart_upload(Bucket=self.objects.bucket, Key=name, UploadId=upload_id)

    def _require_deleted(self, errors: Iterable[Mapping[str, Any]]) -> None:
        for error in errors:
            code = error.get("Code", "")
            if code in ("NoSuchKey", "NotFound"):
                continue
            kind = Forbidden if code == "AccessDenied" else StoreUnavailable
            raise kind(f"{self.name}: delete {error.get('Key', '')}: {code} {error.get('Message', '')}")


def _attachment(name: str) -> str:
    """RFC 6266: the real name for all that know UTF-8, a harmless one for the rest."""
    plain = "".join(sign if sign.isascii() and (sign.isalnum() or sign in " ._-()") else "_" for sign in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


BACKEND = Backend(S3Options, S3Store)
