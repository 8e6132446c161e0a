"""From an upload to its served variants, without faults."""

from __future__ import annotations

import httpx

from tests.faults.stack import Stack
from tests.pictures import encoded, photo


def picture(number: int) -> bytes:
    return encoded(photo(160 + number, 120), "JPEG")


def test_uploads_become_assets_with_variants(stack: Stack) -> None:
    for number in range(20):
        told = stack.upload(f"/line/{number}.jpg", picture(number))
        assert told.status == 202
    stack.check()
    answer = httpx.get(f"{stack.url}/assets/line/3.jpg/-/content?profile=thumb")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg")


def test_waiting_for_the_stored_asset(stack: Stack) -> None:
    told = stack.upload("/line/waited.jpg", picture(50), wait=20)
    assert told.status == 201
    assert told.location == "/assets/line/waited.jpg/-/entry/0"
    stack.check()
