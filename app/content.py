"""Sending a blob: validators, one range, and the bytes without a copy where the server can (RFC 9110 §13, §14)."""

from __future__ import annotations

import io
from contextlib import ExitStack
from typing import BinaryIO, cast
from urllib.parse import quote

from flask import Request, Response
from werkzeug.http import parse_range_header, unquote_etag
from werkzeug.wsgi import wrap_file

from core.errors import InvalidRange
from core.model import BlobFacts
from pipeline.assets import read
from pipeline.services import Services
from storage.interface import Span

BLOCK = 256 * 1024


class Body:
    """What the server sends from. Closing it closes the store's stream."""

    def __init__(self, file: BinaryIO, ahead: bytes, opened: ExitStack, size: int) -> None:
        self._file = file
        self._ahead = ahead
        self._opened = opened
        self._left = size

    def read(self, size: int = BLOCK) -> bytes:
        size = min(size, self._left)
        if self._ahead:
            block, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            block = self._file.read(size)
        self._left -= len(block)
        return block

    def fileno(self) -> int:
        """Only a real file has one; `io.UnsupportedOperation` or AttributeError make the server read instead."""
        return self._file.fileno()

    def close(self) -> None:
        self._opened.close()


def _is_real(file: BinaryIO) -> bool:
    try:
        file.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return False
    return True


def etag(blob: BlobFacts) -> str:
    return blob.sha256.hex()


def send(services: Services, request: Request, blob: BlobFacts) -> Response:
    """Answer 200, 206 or 304 with `blob`.

    Raises:
        InvalidRange: the range lies outside the blob.
        StoreUnavailable: the bytes cannot be read now.
    """
    headers = {"ETag": f'"{etag(blob)}"', "Accept-Ranges": "bytes", "Cache-Control": "no-cache"}
    if request.if_none_match.contains_weak(etag(blob)):
        return Response(status=304, headers=headers)
    span = _span(request, blob)
    start, stop = (span.start, span.stop or blob.size) if span else (0, blob.size)
    if span:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
    headers["Content-Length"] = str(stop - start)
    response = Response(status=206 if span else 200, headers=headers, mimetype=blob.media_type)
    if request.method == "HEAD":
        return response
    file, opened = read.open_blob(services, blob, span)
    with opened:
        # Read while an error of the store can still be answered as one. The kernel sends a real file from where it is.
        ahead = b"" if _is_real(file) else file.read(min(BLOCK, stop - start))
        # As much of a file as PEP 3333 asks for.
        body = cast("BinaryIO", Body(file, ahead, opened.pop_all(), stop - start))
    response.response = wrap_file(request.environ, body, BLOCK)
    response.direct_passthrough = True
    return response


def _span(request: Request, blob: BlobFacts) -> Span | None:
    """The one range that is asked for. Several, other units and broken headers mean the whole (RFC 9110 §14.2)."""
    asked = parse_range_header(request.headers.get("Range"))
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1 or not _same(request, blob):
        return None
    [(first, _)] = asked.ranges
    if first < -blob.size:
        return Span(0, blob.size)  # more of the end than there is: all of it
    start, stop = asked.range_for_length(blob.size) or (None, None)
    if start is None or stop is None:
        raise InvalidRange(f"the range lies outside the {blob.size} bytes", size=blob.size)
    return Span(start, stop)


def _same(request: Request, blob: BlobFacts) -> bool:
    """If-Range: a part is only sent of the representation the client has."""
    condition = request.headers.get("If-Range")
    return condition is None or unquote_etag(condition) == (etag(blob), False)


def attachment(name: str, media_type: str) -> str:
    """RFC 6266, RFC 8187: the name percent-encoded, so that nothing in it can end the header."""
    extension = {"image/jpeg": "jpg", "image/tiff": "tif"}.get(media_type, media_type.removeprefix("image/"))
    stem = name.rsplit(".", 1)[0] if "." in name.strip(".") else name
    return f"attachment; filename*=UTF-8''{quote(f'{stem}.{extension}', safe='')}"
