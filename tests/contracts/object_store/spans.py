"""Ranges are read natively, and what is no range is refused."""

from __future__ import annotations

import random

import pytest

from core.errors import InvalidRange
from storage.interface import ObjectStore, Span
from tests.contracts.object_store.backend import Backend
from tests.contracts.object_store.use import fill, read


class Spans(Backend):
    @pytest.mark.parametrize(
        ("span", "expected"),
        [
            (Span(0), b"0123456789"),
            (Span(0, 1), b"0"),
            (Span(3, 7), b"3456"),
            (Span(9), b"9"),
            (Span(9, 10), b"9"),
            (Span(5, 1000), b"56789"),
            (Span(0, 10), b"0123456789"),
        ],
    )
    def test_spans(self, store: ObjectStore, span: Span, expected: bytes) -> None:
        fill(store, "digits", b"0123456789")
        assert read(store, "digits", span) == expected

    @pytest.mark.parametrize("span", [Span(10), Span(10, 11), Span(11), Span(-1), Span(-3, 2), Span(4, 4), Span(5, 3)])
    def test_spans_that_are_none(self, store: ObjectStore, span: Span) -> None:
        fill(store, "digits", b"0123456789")
        with pytest.raises(InvalidRange):
            read(store, "digits", span)

    def test_a_span_is_read_in_pieces_and_ends_where_it_should(self, store: ObjectStore) -> None:
        data = random.Random(1).randbytes(300_000)
        fill(store, "a", data)
        with store.open("a", Span(1000, 200_000)) as body:
            pieces = [body.read(7), body.read(99_000), body.read(), body.read(1)]
        assert b"".join(pieces) == data[1000:200_000]

    def test_an_empty_object_has_no_span(self, store: ObjectStore) -> None:
        fill(store, "empty", b"")
        with pytest.raises(InvalidRange):
            read(store, "empty", Span(0))
