"""The two ways an upload comes: as a raw body, or as the part `asset` of a form. Both stream, neither is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.body import CHUNK, RequestBody
from app.fields import details_of_json, digests
from core.errors import BadRequest, DigestMismatch, IncompleteBody, UnsupportedType
from core.model import Details

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

SMALL = 64 * 1024
"""Limit of what surrounds the parts of a form: a part's header, what follows the last part."""

MAX_METADATA = 512 * 1024
"""All labels and tags at their limits, every character escaped as JSON may do it, are 384 KiB."""


class RawOffer:
    def __init__(self, body: RequestBody, details: Details, promised: Sequence[bytes]) -> None:
        self._body = body
        self.expected = body.length
        self.details = details
        self.digests = promised

    def pieces(self) -> Iterator[memoryview]:
        """Two buffers in turn, filled again and again; no copy between the socket and the file."""
        size = CHUNK if self.expected is None else max(1, min(self.expected, CHUNK))
        buffer, other = memoryview(bytearray(size)), None
        while count := self._body.fill(buffer):
            yield buffer[:count]
            if self._body.complete:
                return
            buffer, other = other or memoryview(bytearray(size)), buffer


class FormOffer:
    """`multipart/form-data` with the file part `asset` and the JSON part `metadata`, in either order."""

    def __init__(self, body: RequestBody, content_type: str, promised: Sequence[bytes]) -> None:
        """
        Raises:
            BadRequest: there is no usable boundary.
        """
        self._body = body
        self._promised = promised
        self._whole = hashlib.sha256() if promised else None
        self._form = _Form(_boundary(content_type))
        self.expected = body.length

    def pieces(self) -> Iterator[memoryview]:
        while chunk := self._body.read(CHUNK):
            if self._whole is not None:
                self._whole.update(chunk)
            yield from self._form.feed(chunk)
        if self._whole is not None and any(self._whole.digest() != promised for promised in self._promised):
            raise DigestMismatch("the form does not have the SHA-256 that its digest field promises")
        self._form.check_complete()

    @property
    def details(self) -> Details:
        return self._form.details

    @property
    def digests(self) -> Sequence[bytes]:
        return self._form.digests


class _Form:
    """The parser's events, collected: the file's bytes are handed on with every feed, the rest is small and kept."""

    def __init__(self, boundary: bytes) -> None:
        self.details = Details()
        self.digests: list[bytes] = []
        self._part = ""
        self._seen: set[str] = set()
        self._ended = False
        self._after_end = 0
        self._header: dict[str, str] = {}
        self._name = bytearray()
        self._value = bytearray()
        self._metadata = bytearray()
        self._file: list[memoryview] = []
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin_part,
            "on_header_begin": self._begin_header,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open_part,
            "on_part_data": self._take,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        self._parser = MultipartParser(boundary, callbacks, max_header_count=16, max_header_size=SMALL // 16)

    def feed(self, chunk: bytes) -> list[memoryview]:
        """The file's bytes within `chunk`.

        Raises:
            BadRequest: it is no form, or not one of ours.
        """
        if self._ended:
            self._after_end += len(chunk)
            if self._after_end > SMALL:
                raise BadRequest("the form goes on after its last part")
            return []
        self._file = []
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BadRequest(f"the form cannot be read: {error}") from None
        return self._file

    def check_complete(self) -> None:
        """The parser itself does not mind a form that stops in the middle."""
        if not self._ended:
            raise IncompleteBody("the form ended before its last boundary")
        if "asset" not in self._seen:
            raise BadRequest("the form has no part called asset")

    def _begin_part(self) -> None:
        self._header = {}

    def _begin_header(self) -> None:
        self._name, self._value = bytearray(), bytearray()

    def _end_header(self) -> None:
        self._header[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")

    def _open_part(self) -> None:
        kind, options = parse_options_header(self._header.get("content-disposition", ""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or name not in ("asset", "metadata"):
            raise BadRequest(f"a form has the parts asset and metadata, not {name!r}")
        if name in self._seen:
            raise BadRequest(f"the form has two parts called {name}")
        self._seen.add(name)
        self._part = name
        promised = digests([self._header.get("content-digest"), self._header.get("repr-digest")])
        if name == "asset":
            self.digests = promised
        elif promised:
            raise BadRequest("only the part asset may carry a digest")

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._part == "asset":
            self._file.append(memoryview(data)[start:end])
            return
        self._metadata += data[start:end]
        if len(self._metadata) > MAX_METADATA:
            raise BadRequest(f"the part metadata has at most {MAX_METADATA} bytes")

    def _end_part(self) -> None:
        if self._part == "metadata":
            self.details = details_of_json(bytes(self._metadata))

    def _end(self) -> None:
        self._ended = True


def _boundary(content_type: str) -> bytes:
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:
        raise BadRequest("multipart/form-data needs a boundary of 1 to 70 characters")
    return boundary


def form_kind(headers: Mapping[str, str]) -> bool:
    """Whether the body is a form that we read; otherwise it is the file itself.

    Raises:
        UnsupportedType: it is another kind of form, so not a file.
    """
    kind = headers.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        raise UnsupportedType(
            "an application/x-www-form-urlencoded body is no file: send the image's own Content-Type, or "
            "multipart/form-data (curl: -H 'Content-Type: image/jpeg', -T FILE or -F asset=@FILE)"
        )
    return kind == "multipart/form-data"
