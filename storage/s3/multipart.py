"""One body in many parts: several on their way at once, all or nothing at the end.

There are `jobs` buffers of a part's size and no more: the next part is read when a buffer is free. Each part carries
its own checksum, so the service refuses what was damaged on the way; the whole body is hashed while it is read, and the
upload is completed only if it is the promised one. Whatever fails ends the parts that are still under way and aborts
the upload, and waits for that only a little: where the service hangs, the failure must be told before the time for the
whole attempt is over. An upload that stays is invisible.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO

from core.errors import Corrupt, MillraceError
from core.failpoints import failpoint
from core.sections import MIB
from storage.s3.bodies import PartReader, outgoing
from storage.s3.checksums import Checksums
from storage.s3.deadline import Deadline
from storage.s3.lanes import Lanes
from storage.s3.options import MIN_PART
from storage.s3.service import Service

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CopySourceTypeDef

MAX_PARTS = 10_000
ABORT_SECONDS = 10.0


def part_size(size: int, smallest: int) -> int:
    """So large that `MAX_PARTS` are enough, in whole MiB beyond the smallest."""
    needed = -(-size // MAX_PARTS)
    return smallest if needed <= smallest else -(-needed // MIB) * MIB


def part_lengths(size: int, smallest: int, *, uniform: bool) -> list[int]:
    """How a body is cut: into as few parts as their size allows. Equal ones but for the last; or, where the service
    takes any, ones that differ by a byte at most: the parallel ones end together, and they take less memory."""
    part = part_size(size, smallest)
    count = max(1, -(-size // part))
    even, rest = divmod(size, count)
    if not uniform and even >= MIN_PART:
        return [even + 1] * rest + [even] * (count - rest)
    return [part] * (count - 1) + [size - part * (count - 1)]


@dataclass(frozen=True)
class Part:
    """One that the service has. `checksum` is what the end of the upload says of it."""

    number: int
    etag: str
    digest: bytes = b""
    checksum: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MultipartUpload:
    """What fails inside `begun` aborts it."""

    service: Service
    bucket: str
    name: str
    deadline: Deadline
    upload_id: str

    @classmethod
    @contextmanager
    def begun(
        cls, service: Service, bucket: str, name: str, deadline: Deadline, said: Mapping[str, Any]
    ) -> Iterator[MultipartUpload]:
        with service.call(name, deadline) as client:
            created = client.create_multipart_upload(Bucket=bucket, Key=name, **said)
        upload = cls(service, bucket, name, deadline, created["UploadId"])
        try:
            yield upload
        except BaseException:
            aborting = Thread(target=upload._abort, name="s3-abort", daemon=True)
            aborting.start()
            aborting.join(ABORT_SECONDS)
            raise

    def send(
        self, body: BinaryIO, lengths: Sequence[int], *, sha256: bytes, jobs: int, checksums: Checksums
    ) -> list[Part]:
        """Read the body and send it in parts of these lengths.

        Raises:
            Corrupt: the body is not the promised one.
        """
        whole = hashlib.sha256()
        reader = PartReader(body, whole.update)
        longest = max(lengths)
        buffers: dict[int, bytearray] = {}
        with Lanes[Part](jobs, self.deadline) as lanes:
            for number, length in enumerate(lengths, 1):
                lane = lanes.take()
                if lane not in buffers:
                    buffers[lane] = bytearray(longest)
                part = memoryview(buffers[lane])[:length]
                with self.deadline.standing_still():
                    reader.fill(part)
                lanes.start(lane, partial(self._send_part, number, part, checksums, lanes.deadline))
            with self.deadline.standing_still():
                _require(body, whole.digest(), sum(lengths), sha256)
            return lanes.results()

    def copy(self, source: CopySourceTypeDef, lengths: Sequence[int], *, jobs: int) -> list[Part]:
        """Let the service copy an object in parts of these lengths."""
        start = 0
        with Lanes[Part](jobs, self.deadline) as lanes:
            for number, length in enumerate(lengths, 1):
                lane = lanes.take()
                span = f"bytes={start}-{start + length - 1}"
                lanes.start(lane, partial(self._copy_part, number, source, span, lanes.deadline))
                start += length
            return lanes.results()

    def complete(self, parts: Sequence[Part], condition: Mapping[str, Any]) -> Mapping[str, Any]:
        """Create the object, if the name is free.

        Raises:
            PreconditionFailed, ConditionalConflict, NoSuchUpload, Unsupported: see storage/s3/errors.py.
        """
        failpoint("s3.before-complete", self.name)
        listed: Any = [{"PartNumber": part.number, "ETag": part.etag, **part.checksum} for part in parts]
        with self.service.call(self.name, self.deadline) as client:
            return client.complete_multipart_upload(
                Bucket=self.bucket,
                Key=self.name,
                UploadId=self.upload_id,
                MultipartUpload={"Parts": listed},
                **condition,
            )

    def _send_part(self, number: int, part: memoryview, checksums: Checksums, deadline: Deadline) -> Part:
        digest = checksums.digest(part)
        with self.service.call(self.name, deadline) as client:
            answer = client.upload_part(
                Bucket=self.bucket,
                Key=self.name,
                UploadId=self.upload_id,
                PartNumber=number,
                Body=outgoing(part, deadline),
                **checksums.sent(digest),
            )
        return Part(number, answer["ETag"], digest, checksums.listed(digest))

    def _copy_part(self, number: int, source: CopySourceTypeDef, span: str, deadline: Deadline) -> Part:
        with self.service.call(self.name, deadline) as client:
            answer = client.upload_part_copy(
                Bucket=self.bucket,
                Key=self.name,
                UploadId=self.upload_id,
                PartNumber=number,
                CopySource=source,
                CopySourceRange=span,
            )
        return Part(number, answer["CopyPartResult"]["ETag"])

    def _abort(self) -> None:
        with suppress(MillraceError), self.service.call(self.name) as client:
            client.abort_multipart_upload(Bucket=self.bucket, Key=self.name, UploadId=self.upload_id)


def _require(body: BinaryIO, digest: bytes, size: int, sha256: bytes) -> None:
    if body.read(1):
        raise Corrupt(f"the body is longer than the promised {size} bytes")
    if digest != sha256:
        raise Corrupt(f"the body's SHA-256 is {digest.hex()} and not the promised {sha256.hex()}")
