"""One key is one asset, as far as this host can tell without anybody's help."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import httpx

from core.model import FailureReason
from tests.app.server import Web
from tests.pictures import encoded, photo

JPEG = encoded(photo(), "JPEG")
OTHER = encoded(photo(100, 100), "JPEG")


def post(web: Web, body: bytes = JPEG, key: str = "order-7", path: str = "/a?alt=x") -> httpx.Response:
    return httpx.post(f"{web.url}/assets{path}", content=body, headers={"Idempotency-Key": key})


def test_the_same_again_is_the_first(start_web: Callable[..., Web]) -> None:
    web = start_web(WEB__WORKERS=2)
    answers = [post(web) for _ in range(6)]  # whichever process takes them
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len({answer.headers["Location"] for answer in answers}) == 1
    told = answers[0].json()
    assert told["assetId"] != told["id"]
    assert len(web.leftovers()) == 1


def test_another_use_of_the_key_is_a_conflict(web: Web) -> None:
    post(web)
    for answer in (post(web, OTHER), post(web, path="/b?alt=x"), post(web, path="/a?alt=y")):
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency-conflict")
    assert len(web.leftovers()) == 1
    assert post(web, OTHER, key="order-8").status_code == 202


def test_the_key_outlives_the_process_and_the_ingest(start_web: Callable[..., Web]) -> None:
    web = start_web()
    first = post(web).json()
    web.stop()
    web.start()
    assert post(web).json()["id"] == first["id"]
    with web.staging.claim(UUID(first["id"])) as claim:  # type: ignore[union-attr]
        claim.drop()  # recorded: in the trash for a while
    assert post(web).json()["id"] == first["id"]
    assert post(web, OTHER).status_code == 422


def test_after_a_failure_the_key_is_free(web: Web) -> None:
    first = post(web).json()
    with web.staging.claim(UUID(first["id"])) as claim:  # type: ignore[union-attr]
        claim.start()
        claim.quarantine(FailureReason("bad-image", "cut"))
    again = post(web).json()
    assert again["id"] != first["id"]
    assert again["assetId"] == first["assetId"]
