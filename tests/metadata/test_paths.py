from __future__ import annotations

import random
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadPath
from metadata.paths import MAX_LABEL, MAX_LTREE, AssetPath, decode_label, encode_label, label_length
from tests.metadata.conftest import Query

SEGMENTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)


@given(SEGMENTS)
def test_every_label_decodes_to_its_segment(segment: str) -> None:
    label = encode_label(segment)
    assert re.fullmatch(r"[A-Za-z0-9_]+", label)
    assert decode_label(label) == segment
    assert label_length(segment) == len(label)


@given(SEGMENTS, SEGMENTS)
def test_different_segments_have_different_labels(one: str, other: str) -> None:
    assert (encode_label(one) == encode_label(other)) == (one == other)


@given(st.lists(SEGMENTS, min_size=1, max_size=5))
def test_an_accepted_path_survives_its_url_and_keeps_the_limits(segments: list[str]) -> None:
    try:
        path = AssetPath.from_text("/" + "/".join(segments))
    except BadPath:
        return
    assert AssetPath.parse(path.url) == path
    assert AssetPath.from_text(path.text) == path
    assert len(path.ltree) <= MAX_LTREE
    assert all(len(label) <= MAX_LABEL for label in path.ltree.split("."))
    assert "/" + "/".join(map(decode_label, path.ltree.split("."))) == path.text


@pytest.mark.parametrize(
    "raw",
    [
        "", "/", "a", "//a", "/a//b", "/a/", "/.", "/a/..", "/a/%2E%2e/b", "/-", "/a/-/b", "/a\\b", "/a%5Cb", "/a%2Fb",
        "/a%2fb", "/a%00", "/a%1F", "/a%7F", "/a%C2%85", "/a%E2%80%A8", "/a%", "/a%4", "/a%zz", "/%ff", "/%C3",
        "/%ED%A0%80", "/shö", "/" + "a" * 256, "/" + "%E2%82%AC" * 60, "/a" * 101, ("/" + "a" * 200) * 8,
    ],
)  # fmt: skip
def test_refused(raw: str) -> None:
    with pytest.raises(BadPath):
        AssetPath.parse(raw)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("/catalog/sh%C3%B6es/red.jpg", "/catalog/shöes/red.jpg"),
        ("/o%CC%88", "/ö"),
        ("/a-b/--/...", "/a-b/--/..."),
        ("/a+b%20c", "/a+b c"),
        ("/100%25", "/100%"),
        ("/" + "a" * 255, "/" + "a" * 255),
        ("/a" * 100, "/a" * 100),
        (("/" + "a" * 199) * 8, ("/" + "a" * 199) * 8),
    ],
)
def test_accepted(raw: str, text: str) -> None:
    assert AssetPath.parse(raw).text == text


def test_composed_and_decomposed_are_one_path() -> None:
    decomposed = AssetPath.from_text(unicodedata.normalize("NFD", "/größe"))
    assert decomposed == AssetPath.from_text("/größe")
    assert decomposed.hash == AssetPath.from_text("/größe").hash


def test_thousands_of_paths_at_the_limits_and_a_short_one_after_them(query: Query) -> None:
    numbers = random.Random(1)
    segments = [_segment(numbers) for _ in range(1000)]
    paths = {_longest(numbers, segments) for _ in range(3_000)}
    assert len(paths) == 3_000
    query("INSERT INTO blob (sha256, size, media_type) VALUES (%s, 1, 'image/png')", b"b" * 32)
    rows = [(path.ltree, path.text, path.hash) for path in [*paths, AssetPath.from_text("/short")]]
    for start in range(0, len(rows), 1000):
        columns = [list(column) for column in zip(*rows[start : start + 1000], strict=True)]
        query(
            "INSERT INTO asset (id, path, path_text, path_hash, entry, blob, width, height, orientation, has_alpha,"
            " fingerprint, upload_id, accepted_at, accepted_by_host_at)"
            " SELECT gen_random_uuid(), p::ltree, t, h, 0, %s, 1, 1, 1, false,"
            " '', gen_random_uuid(), now(), now() FROM unnest(%s::text[], %s::text[], %s::bytea[]) AS given (p, t, h)",
            b"b" * 32,
            *columns,
        )
    assert query("SELECT count(*), count(DISTINCT path) FROM asset") == [(len(rows), len(rows))]
    assert query("SELECT path_text FROM asset WHERE path <@ 'short'") == [("/short",)]


def _segment(numbers: random.Random) -> str:
    alphabet = numbers.choice(("abc123", "äöüéñ", "日本語写真", "🙂🚀", "-_.~ %"))
    return "".join(numbers.choices(alphabet, k=numbers.randint(2, 20))) + "z"


def _longest(numbers: random.Random, segments: list[str]) -> AssetPath:
    """Of several scripts, and filled up so that the ltree has as many bytes as it may."""
    chosen: list[str] = []
    left = MAX_LTREE
    while left > 200:
        chosen.append(numbers.choice(segments))
        left -= label_length(chosen[-1]) + 1
    path = AssetPath.from_text("/" + "/".join([*chosen, "z" * left]))
    assert len(path.ltree) == MAX_LTREE
    return path
