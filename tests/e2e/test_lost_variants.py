"""A variant whose bytes are gone is rendered again while somebody asks for it, once for all who do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.faults.stack import Stack
from tests.pictures import encoded, photo


def test_whoever_asks_for_a_lost_variant_gets_it(stack: Stack) -> None:
    told = stack.upload("/lost/variant.jpg", encoded(photo(90, 70), "JPEG"), wait=20)
    assert told.status == 201
    address = f"{stack.url}/assets/lost/variant.jpg/-/content?w=33"

    def get(_: int = 0) -> httpx.Response:
        answer = httpx.get(address, timeout=60)
        while answer.status_code == 202:
            answer = httpx.get(address, timeout=60)
        return answer

    before = get()
    assert before.status_code == 200
    find = (
        "SELECT id, attempts, fence, encode(blob, 'hex') FROM variant"
        " WHERE source = decode(%s, 'hex') AND recipe->>'w' = '33'"
    )
    [(variant, attempts, fence, sha256)] = stack.sql(find, told.sha256)
    [file] = (stack.home / "store" / "objects").rglob(f"{sha256}.*")
    file.unlink()
    with ThreadPoolExecutor(8) as crowd:
        answers = list(crowd.map(get, range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert {answer.content for answer in answers} == {before.content}
    [(same, _, later, _)] = stack.sql(find, told.sha256)
    assert (same, later) == (variant, fence + 2)  # given up once, leased once
    assert attempts == 1
