"""How the service is told what a body must hash to, and whether its answer vouches for the body it has.

SHA-256 is the checksum of today's S3; of a body in parts it is the hash of the parts' hashes. MD5 is for services that
refuse or ignore that: the body carries `Content-MD5`, and the answer's ETag is the MD5 where nothing is encrypted.
An answer that says nothing, or something else, condemns no object: then its bytes are read back.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol


class Checksums(Protocol):
    upload: Mapping[str, Any]
    """What the beginning of an upload in parts says."""
    look: Mapping[str, Any]
    """What a HEAD says so that it is told the checksum."""

    def digest(self, data: memoryview) -> bytes: ...

    def whole(self, data: memoryview, sha256: bytes) -> bytes:
        """The digest of a body whose SHA-256 is known."""

    def composite(self, digests: Iterable[bytes]) -> bytes:
        """The digest of a body in parts."""

    def sent(self, digest: bytes) -> Mapping[str, Any]:
        """What goes with a body."""

    def listed(self, digest: bytes) -> Mapping[str, Any]:
        """What the end of an upload in parts says of each."""

    def vouches(self, answer: Mapping[str, Any], digest: bytes) -> bool: ...

    def vouches_for_other(self, answer: Mapping[str, Any], sha256: bytes) -> bool:
        """The same for an object that somebody else made, which promises this hash in its metadata."""


class Sha256:
    upload: Mapping[str, Any] = {"ChecksumAlgorithm": "SHA256"}
    look: Mapping[str, Any] = {"ChecksumMode": "ENABLED"}

    def digest(self, data: memoryview) -> bytes:
        return hashlib.sha256(data).digest()

    def whole(self, data: memoryview, sha256: bytes) -> bytes:
        del data
        return sha256

    def composite(self, digests: Iterable[bytes]) -> bytes:
        return hashlib.sha256(b"".join(digests)).digest()

    def sent(self, digest: bytes) -> Mapping[str, Any]:
        return {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": _base64(digest)}

    def listed(self, digest: bytes) -> Mapping[str, Any]:
        return {"ChecksumSHA256": _base64(digest)}

    def vouches(self, answer: Mapping[str, Any], digest: bytes) -> bool:
        return str(answer.get("ChecksumSHA256", "")).partition("-")[0] == _base64(digest)

    def vouches_for_other(self, answer: Mapping[str, Any], sha256: bytes) -> bool:
        """A composite one depends on how the body was cut, which nobody knows any more. But whoever completed the
        upload had hashed the whole body, and the service had checked each part."""
        return "-" in answer.get("ChecksumSHA256", "") or self.vouches(answer, sha256)


class Md5:
    upload: Mapping[str, Any] = {}
    look: Mapping[str, Any] = {}

    def digest(self, data: memoryview) -> bytes:
        return hashlib.md5(data, usedforsecurity=False).digest()

    def whole(self, data: memoryview, sha256: bytes) -> bytes:
        del sha256
        return self.digest(data)

    def composite(self, digests: Iterable[bytes]) -> bytes:
        return hashlib.md5(b"".join(digests), usedforsecurity=False).digest()

    def sent(self, digest: bytes) -> Mapping[str, Any]:
        return {"ContentMD5": _base64(digest)}

    def listed(self, digest: bytes) -> Mapping[str, Any]:
        del digest
        return {}

    def vouches(self, answer: Mapping[str, Any], digest: bytes) -> bool:
        return str(answer.get("ETag", "")).strip('"').partition("-")[0] == digest.hex()

    def vouches_for_other(self, answer: Mapping[str, Any], sha256: bytes) -> bool:
        del answer, sha256
        return False


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
