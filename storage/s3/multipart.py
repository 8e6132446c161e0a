"""One body in many parts: several on their way at once, all or nothing at the end.

At most `jobs` parts and the one that is being read are in memory. A part carries its MD5, so the service refuses what
was damaged on the way. Whatever fails aborts the upload, and waits for that only a little: where the service hangs, the
failure must be told before the time for the whole attempt is over. An upload that stays is invisible.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any

from core.errors import MillraceError
from core.failpoints import failpoint
from core.settings import MIB
from storage.s3.errors import translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

MAX_PARTS = 10_000
ABORT_SECONDS = 10.0


def part_size(size: int, smallest: int) -> int:
    """So large that `MAX_PARTS` are enough, in whole MiB beyond the smallest."""
    needed = -(-size // MAX_PARTS)
    return smallest if needed <= smallest else -(-needed // MIB) * MIB


@dataclass(frozen=True)
class MultipartUpload:
    client: S3Client
    bucket: str
    name: str
    jobs: int

    def send(self, blocks: Iterator[bytes], *, media_type: str, metadata: Mapping[str, str]) -> Mapping[str, Any]:
        """Upload the blocks, each as a part, and create the object if the name is free.

        Raises:
            PreconditionFailed, ConditionalConflict, NoSuchUpload: see storage/s3/errors.py.
        """
        with translated(self.name):
            created = self.client.create_multipart_upload(
                Bucket=self.bucket, Key=self.name, ContentType=media_type, Metadata=dict(metadata)
            )
        upload_id = created["UploadId"]
        try:
            parts = self._send_parts(upload_id, blocks)
            failpoint("s3.before-complete", self.name)
            with translated(self.name):
                return self.client.complete_multipart_upload(
                    Bucket=self.bucket,
                    Key=self.name,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": parts},
                    IfNoneMatch="*",
                )
        except BaseException:
            aborting = Thread(target=self._abort, args=(upload_id,), name="s3-abort", daemon=True)
            aborting.start()
            aborting.join(ABORT_SECONDS)
            raise

    def _abort(self, upload_id: str) -> None:
        with suppress(MillraceError), translated(self.name):
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=self.name, UploadId=upload_id)

    def _send_parts(self, upload_id: str, blocks: Iterator[bytes]) -> list[CompletedPartTypeDef]:
        parts: list[CompletedPartTypeDef] = []
        under_way: set[Future[CompletedPartTypeDef]] = set()
        with ThreadPoolExecutor(self.jobs, thread_name_prefix="s3-part") as pool:
            number = 0
            while True:
                if len(under_way) == self.jobs:
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    parts += [future.result() for future in done]
                block = next(blocks, None)
                if block is None:
                    break
                number += 1
                under_way.add(pool.submit(self._send_part, upload_id, number, block))
            parts += [future.result() for future in under_way]
        return sorted(parts, key=lambda part: part["PartNumber"])

    def _send_part(self, upload_id: str, number: int, block: bytes) -> CompletedPartTypeDef:
        digest = hashlib.md5(block, usedforsecurity=False).digest()
        with translated(self.name):
            sent = self.client.upload_part(
                Bucket=self.bucket,
                Key=self.name,
                UploadId=upload_id,
                PartNumber=number,
                Body=block,
                ContentMD5=base64.b64encode(digest).decode(),
            )
        return {"PartNumber": number, "ETag": sent["ETag"]}
