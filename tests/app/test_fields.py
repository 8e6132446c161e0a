"""What clients write into header fields, in every spelling."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.fields import MAX_TAGS, details_of_json, details_of_query, digests, wait_seconds
from core.errors import BadRequest


def field(digest: bytes) -> str:
    return f"sha-256=:{base64.b64encode(digest).decode()}:"


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["", ", md5=:AAAA:", ' ,\tx=:AA==:;a=1;b="c,d"']))
def test_a_sha_256_is_found_among_others(digest: bytes, others: str) -> None:
    assert digests([field(digest) + others]) == [digest]


@given(st.text(max_size=80))
def test_any_other_text_is_refused_or_says_nothing(text: str) -> None:
    with suppress(BadRequest):
        assert all(len(digest) == 32 for digest in digests([text]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha-256",
        "sha-256=",
        "sha-256=:",
        "sha-256=::",
        "sha-256=abc",
        "sha-256=:!!!!:",
        "sha-256=:AAAA:",
        "SHA-256=:AAAA:",
    ]
    + [field(bytes(32)) + ",", field(bytes(32)) + " x=:AAAA:", field(bytes(31)), field(bytes(32))[:-1]],
)
def test_malformed_digests_are_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        digests([text])


def test_only_sha_256_counts_and_the_last_one_given() -> None:
    first, second = hashlib.sha256(b"1").digest(), hashlib.sha256(b"2").digest()
    assert digests([None, "sha-512=:AAAA:"]) == []
    assert digests([f"{field(first)}, {field(second)}"]) == [second]


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, None),
        ("wait=5", 5),
        ("respond-async, WAIT = 7", 7),
        ('wait="3"', 3),
        ("wait=99", 30),
        ("wait=" + "9" * 5000, 30),
        ("wait=-1", None),
        ("wait=soon", None),
        ("wait", None),
        ("waiting=3", None),
    ],
)
def test_preferences(prefer: str | None, seconds: int | None) -> None:
    assert wait_seconds(prefer) == seconds


@given(st.binary(max_size=200))
def test_metadata_is_read_or_refused(text: bytes) -> None:
    with suppress(BadRequest):
        details_of_json(text)


@pytest.mark.parametrize("said", [[], 1, {"alt": 1}, {"labels": []}, {"labels": {"a": 1}}, {"tags": [1]}, {"x": 1}])
def test_metadata_of_other_shapes_is_refused(said: object) -> None:
    with pytest.raises(BadRequest):
        details_of_json(json.dumps(said).encode())


def test_metadata_names_nothing_twice() -> None:
    with pytest.raises(BadRequest):
        details_of_json(b'{"alt": "a", "alt": "b"}')


def test_deep_metadata_is_refused() -> None:
    with pytest.raises(BadRequest):
        details_of_json(b"[" * 60_000)


def test_equal_tags_are_one() -> None:
    details = details_of_query([("tag", "b")] * (MAX_TAGS + 1) + [("tag", "a"), ("alt", "")])
    assert (list(details.tags), details.alt) == (["b", "a"], "")
