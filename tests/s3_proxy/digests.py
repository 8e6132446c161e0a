"""A body against the digests that its request declares: what damaged it on the way is refused, as S3 refuses it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib

from tests.s3_proxy.messages import Answer, Request, refusal

_CHECKSUM = "x-amz-checksum-"
_IN_BASE64 = ("content-md5", _CHECKSUM + "sha256", _CHECKSUM + "crc32")
_SIGNED = "x-amz-content-sha256"
_KNOWN = {*_IN_BASE64, _CHECKSUM + "algorithm", _CHECKSUM + "mode", _CHECKSUM + "type"}


def declared(request: Request) -> dict[str, bytes]:
    """The digests that protect the body, by the names of their headers."""
    found = {name: _decoded(request.headers[name]) for name in _IN_BASE64 if name in request.headers}
    signed = request.headers.get(_SIGNED, "")
    return found | ({_SIGNED: bytes.fromhex(signed)} if re.fullmatch("[0-9a-f]{64}", signed) else {})


def objection(request: Request) -> Answer | None:
    """400 for a body that is not the declared one; 501 for a digest that is not understood here, so that nothing
    passes unchecked by mistake."""
    strange = [name for name in request.headers if name.startswith(_CHECKSUM) and name not in _KNOWN]
    if strange or "aws-chunked" in request.headers.get("content-encoding", ""):
        return refusal(501, "NotImplemented", f"cannot check {strange or 'a chunked body'}")
    md5, sha256, crc32 = hashlib.md5(), hashlib.sha256(), 0
    for block in request.blocks():
        md5.update(block)
        sha256.update(block)
        crc32 = zlib.crc32(block, crc32)
    real = dict(zip(_IN_BASE64, (md5.digest(), sha256.digest(), crc32.to_bytes(4, "big")), strict=True))
    real[_SIGNED] = sha256.digest()
    for name, digest in declared(request).items():
        if digest != real[name]:
            code = "XAmzContentSHA256Mismatch" if name == _SIGNED else "BadDigest"
            return refusal(400, code, f"the body does not match {name}")
    return None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b"not a digest"
