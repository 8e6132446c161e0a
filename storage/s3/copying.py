"""Copies within a service: the bytes never come here.

`CopyObject` knows no condition on its target that all services share. So the key is looked for first; two copiers that
race write the same bytes, since keys are made from them. A copy is believed when a look at it shows the source's size
and hash; objects that other programs put there may have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.errors import AlreadyExists, NotFound
from storage.interface import Stored
from storage.s3.deadline import Deadline
from storage.s3.errors import ConditionalConflict, Damaged, NoSuchUpload, PreconditionFailed, Unsupported
from storage.s3.multipart import MultipartUpload, part_lengths
from storage.s3.objects import Objects, stored
from storage.s3.options import S3Options

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CopySourceTypeDef


class Copier:
    def __init__(self, objects: Objects, options: S3Options) -> None:
        self._objects = objects
        self._service = objects.service
        self._options = options

    def copy(self, origin: Objects, source_key: str, key: str, condition: Mapping[str, Any]) -> Stored | None:
        """`condition` creates the target only if its key is free. None: the service cannot.

        Raises:
            NotFound: there is no such object to copy.
            AlreadyExists: the target holds other bytes.
        """
        answer = origin.head(source_key)
        source = stored(source_key, answer)
        deadline = self._service.deadline(source.size)
        if there := self._find(source, key, deadline):
            return there
        try:
            if source.size > self._options.multipart_copy_threshold:
                self._copy_parts(source, origin, answer, key, condition, deadline)
            else:
                self._copy_whole(source, origin, key, deadline)
        except Unsupported:
            return None
        except (PreconditionFailed, ConditionalConflict, NoSuchUpload):
            pass  # somebody else was quicker, or the answer was lost: the look tells
        if there := self._find(source, key, deadline):
            return there
        raise Damaged(f"{self._objects.subject(key)}: copied, and not there")

    def _copy_whole(self, source: Stored, origin: Objects, key: str, deadline: Deadline) -> None:
        with self._service.call(self._objects.subject(key), deadline) as client:
            client.copy_object(
                Bucket=self._objects.bucket,
                Key=self._objects.name(key),
                CopySource={"Bucket": origin.bucket, "Key": origin.name(source.key)},
                **self._storage_class,
            )

    def _copy_parts(
        self,
        source: Stored,
        origin: Objects,
        answer: Mapping[str, Any],
        key: str,
        condition: Mapping[str, Any],
        deadline: Deadline,
    ) -> None:
        options = self._options
        lengths = part_lengths(source.size, options.multipart_copy_chunk_size, uniform=options.uniform_parts)
        said = {"ContentType": answer["ContentType"], "Metadata": answer["Metadata"], **self._storage_class}
        name = self._objects.name(key)
        with MultipartUpload.begun(self._service, self._objects.bucket, name, deadline, said) as upload:
            place: CopySourceTypeDef = {"Bucket": origin.bucket, "Key": origin.name(source.key)}
            upload.complete(upload.copy(place, lengths, jobs=options.multipart_copy_jobs), condition)

    @property
    def _storage_class(self) -> dict[str, Any]:
        return {"StorageClass": self._options.storage_class} if self._options.storage_class else {}

    def _find(self, source: Stored, key: str, deadline: Deadline) -> Stored | None:
        try:
            there = stored(key, self._objects.look(key, deadline))
        except NotFound:
            return None
        if there.size != source.size or len({there.sha256, source.sha256} - {None}) > 1:
            raise AlreadyExists(f"{key} holds other bytes")
        return there
