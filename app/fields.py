"""What clients say in header fields, queries and form parts, checked: details, digests, preferences."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.errors import BadRequest
from core.model import Details

MAX_ALT = 125
MAX_LABELS, MAX_LABEL_KEY, MAX_LABEL_VALUE = 50, 128, 256
MAX_TAGS, MAX_TAG = 50, 256
MAX_WAIT = 30

_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")

_KEY = r"[a-z*][a-z0-9_.*-]*"
_PARAMETERS = rf"(?:;[ ]*{_KEY}(?:=(?:\"[^\"]*\"|[^;,\"]*))?)*"
_DIGEST = re.compile(rf"({_KEY})=:([A-Za-z0-9+/]*={{0,2}}):{_PARAMETERS}")
_BETWEEN = re.compile(r"[ \t]*,[ \t]*")


def digests(values: Iterable[str | None]) -> list[bytes]:
    """The SHA-256 values of Content-Digest and Repr-Digest fields (RFC 9530). Other algorithms are not checked.

    Raises:
        BadRequest: a field is no dictionary of byte sequences, or a sha-256 is not 32 bytes long.
    """
    return [digest for value in values if value is not None for digest in _sha256_of(value)]


def _sha256_of(field: str) -> list[bytes]:
    field = field.strip(" \t")
    found: dict[str, bytes] = {}
    position = 0
    while True:
        member = _DIGEST.match(field, position)
        if member is None:
            raise BadRequest("a digest field is a list of algorithm=:base64:, e.g. sha-256=:47DEQ…=:")
        found[member[1]] = _decoded(member[2])
        if member.end() == len(field):
            break
        between = _BETWEEN.match(field, member.end())
        if between is None:
            raise BadRequest("members of a digest field are separated by commas")
        position = between.end()
    sha256 = found.get("sha-256")
    if sha256 is None:
        return []
    if len(sha256) != 32:
        raise BadRequest("a sha-256 digest is 32 bytes long")
    return [sha256]


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise BadRequest("a digest field's value is not base64") from None


def wait_seconds(prefer: str | None) -> int | None:
    """`Prefer: wait=N` (RFC 7240), at most 30. What cannot be understood is no preference."""
    for preference in (prefer or "").split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        value = value.strip(' \t"')
        if name.strip().lower() == "wait" and value.isascii() and value.isdigit():
            return min(int(value[:9]), MAX_WAIT)
    return None


def details_of_query(parameters: Sequence[tuple[str, str]]) -> Details:
    """`alt`, `tag` (repeated) and `label.KEY`.

    Raises:
        BadRequest: naming the parameter.
    """
    alt: str | None = None
    labels: dict[str, str] = {}
    tags: list[str] = []
    for name, value in parameters:
        if name == "tag":
            tags.append(value)
        elif name.startswith("label."):
            key = name.removeprefix("label.")
            if key in labels:
                raise BadRequest(f"given more than once: {name}")
            labels[key] = value
        elif name == "alt":
            if alt is not None:
                raise BadRequest("given more than once: alt")
            alt = value
        else:
            raise BadRequest(f"unknown query parameter: {name}")
    return checked(alt, labels, tags)


def details_of_json(text: bytes) -> Details:
    """The form part `metadata`: an object of `alt`, `labels` and `tags`, each optional.

    Raises:
        BadRequest: saying what is wrong with it.
    """
    said = json_object("metadata", text)
    unknown = sorted(said.keys() - {"alt", "labels", "tags"})
    if unknown:
        raise BadRequest(f"metadata knows alt, labels and tags, not {unknown[0]!r}")
    alt, labels, tags = said.get("alt"), said.get("labels", {}), said.get("tags", [])
    if not (alt is None or isinstance(alt, str)):
        raise BadRequest("metadata: alt is a string")
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise BadRequest("metadata: labels is an object of strings")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise BadRequest("metadata: tags is a list of strings")
    return checked(alt, labels, tags)


def json_object(what: str, text: bytes) -> dict[str, Any]:
    """What a client sent as JSON, once checked that it is an object.

    Raises:
        BadRequest: it is not, or it is nested deeper or has longer numbers than we read.
    """
    try:
        said = json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError too
        raise BadRequest(f"{what} is not JSON that can be read: {error}") from None
    if not isinstance(said, dict):
        raise BadRequest(f"{what} is a JSON object")
    return said


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number in JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name is given twice in one object")
    return made


def checked(alt: str | None, labels: Mapping[str, str], tags: Sequence[str]) -> Details:
    """
    Raises:
        BadRequest: too many, too long, empty, or with control characters.
    """
    if alt is not None:
        _check("alt", alt, MAX_ALT, empty=True)
    if len(labels) > MAX_LABELS:
        raise BadRequest(f"at most {MAX_LABELS} labels")
    for key, value in labels.items():
        _check("a label's key", key, MAX_LABEL_KEY)
        _check("a label's value", value, MAX_LABEL_VALUE, empty=True)
    unique = tuple(dict.fromkeys(tags))
    if len(unique) > MAX_TAGS:
        raise BadRequest(f"at most {MAX_TAGS} tags")
    for tag in unique:
        _check("a tag", tag, MAX_TAG)
    return Details(alt, dict(labels), unique)


def _check(what: str, text: str, limit: int, *, empty: bool = False) -> None:
    if len(text) > limit:
        raise BadRequest(f"{what} has at most {limit} characters")
    if not text and not empty:
        raise BadRequest(f"{what} is not empty")
    if _CONTROL.search(text):
        raise BadRequest(f"{what} has no control characters")
