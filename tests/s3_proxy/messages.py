"""Requests and answers as the proxy handles them: a request's body lies in a file, an answer's goes by in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO
from urllib.parse import parse_qs, unquote, urlsplit

BLOCK_BYTES = 1 << 16

_OPERATIONS = {
    ("object", "PUT", "partNumber"): "UploadPart",
    ("object", "PUT", ""): "PutObject",
    ("object", "POST", "uploads"): "CreateMultipartUpload",
    ("object", "POST", "uploadId"): "CompleteMultipartUpload",
    ("object", "DELETE", "uploadId"): "AbortMultipartUpload",
    ("object", "DELETE", ""): "DeleteObject",
    ("object", "GET", ""): "GetObject",
    ("object", "HEAD", ""): "HeadObject",
    ("bucket", "GET", "uploads"): "ListMultipartUploads",
    ("bucket", "GET", "list-type"): "ListObjectsV2",
    ("bucket", "POST", "delete"): "DeleteObjects",
    ("bucket", "HEAD", ""): "HeadBucket",
    ("bucket", "PUT", ""): "CreateBucket",
}
_COPIES = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: IO[bytes]
    size: int

    @property
    def key(self) -> str:
        """Empty where the bucket itself is meant."""
        _, _, key = unquote(urlsplit(self.target).path).removeprefix("/").partition("/")
        return key

    @property
    def operation(self) -> str:
        """By the name that S3's documentation has for it; one that Millrace does not use is `METHOD target`."""
        level = "object" if self.key else "bucket"
        query = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        for (where, method, marker), name in _OPERATIONS.items():
            if (where, method) == (level, self.method) and (not marker or marker in query):
                return _COPIES.get(name, name) if "x-amz-copy-source" in self.headers else name
        return f"{self.method} {self.target}"

    def blocks(self) -> Iterable[bytes]:
        self.body.seek(0)
        while block := self.body.read(BLOCK_BYTES):
            yield block


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    blocks: Iterable[bytes] = ()

    @property
    def size(self) -> int:
        """Of the body as promised; an answer to HEAD promises one that never comes."""
        return int(self.headers.get("content-length", 0))


def refusal(status: int, code: str, detail: str) -> Answer:
    text = f"<Error><Code>{code}</Code><Message>{detail}</Message></Error>".encode()
    headers = {"content-type": "application/xml", "content-length": str(len(text)), "x-refused": code}
    return Answer(status, headers, [text])


class HungUp(Exception):
    """The connection ends here, with whatever was said so far."""
