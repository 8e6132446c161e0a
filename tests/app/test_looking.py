"""`/ingests`, `/readyz` and the page, with nothing there but the local disk."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest

from core import troubles
from core.model import FailureReason
from tests.app.server import Web
from tests.pictures import encoded, photo

JPEG = encoded(photo(), "JPEG")


def test_the_accepting_host_knows_every_step_by_itself(web: Web) -> None:
    answer = httpx.post(f"{web.url}/assets/a", content=JPEG)
    url = web.url + answer.headers["Location"]
    told = httpx.get(url).json()
    assert told == {
        "id": answer.json()["id"],
        "assetId": answer.json()["id"],
        "state": "staged",
        "attempts": 0,
        "path": "/a",
        "entry": None,
        "times": {"accepted": told["times"]["accepted"], "stored": None},
        "failure": None,
        "links": {"self": answer.headers["Location"], "asset": None},
        "variants": [],
    }
    upload_id = UUID(told["id"])
    with web.staging.claim(upload_id) as claim:  # type: ignore[union-attr]
        claim.start()
        assert httpx.get(url).json()["state"] == "storing"
        claim.quarantine(FailureReason("bad-image", "the picture is cut"))
    failed = httpx.get(url).json()
    assert (failed["state"], failed["failure"]) == ("failed", {"class": "bad-image", "detail": "the picture is cut"})
    web.staging.requeue(upload_id)
    with web.staging.claim(upload_id) as claim:  # type: ignore[union-attr]
        claim.drop()
    assert httpx.get(url).json()["state"] == "stored"
    web.staging.empty_trash(timedelta(0))
    assert httpx.get(url).json()["code"] == "unavailable"


def test_another_host_sends_to_the_one_that_accepted(shared_web: Web) -> None:
    answer = httpx.get(f"{shared_web.url}/ingests/{uuid4()}?at={uuid4()}")
    assert answer.status_code == 503
    assert answer.json()["type"].endswith(":ask-staging-host")
    assert "Retry-After" in answer.headers


def test_readiness_lists_everything_and_accepts_on_disk_alone(shared_web: Web) -> None:
    answer = httpx.get(f"{shared_web.url}/readyz")
    assert answer.status_code == 503
    told = answer.json()
    assert told["capabilities"] == {"accept": True, "read": False}
    assert {name: one["ok"] for name, one in told["dependencies"].items()} == {
        "staging": True,
        "postgres": False,
        "redis": False,
        "store:main": False,  # the server has not heard yet which store is this installation's
        "background": True,
        "queues": False,
    }
    assert all(one["detail"] for one in told["dependencies"].values())
    assert "nothing" not in answer.text  # the password in the URL
    assert httpx.get(f"{shared_web.url}/readyz?for=accept").status_code == 200
    assert httpx.get(f"{shared_web.url}/readyz?for=read").status_code == 503


def test_what_fails_again_and_again_on_this_host_shows_and_refuses_nothing(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(troubles, "_directory", web.home / "troubles")
    troubles.note("sweep.failures", 7, 60, "RuntimeError", "what PostgreSQL said")
    answer = httpx.get(f"{web.url}/readyz")
    background = answer.json()["dependencies"]["background"]
    assert not background["ok"]
    assert "sweep.failures fails since" in background["detail"]
    assert "7 times" in background["detail"]
    assert "what PostgreSQL said" not in answer.text
    assert httpx.get(f"{web.url}/readyz?for=accept").status_code == 200


def test_a_staging_that_cannot_be_written_to_accepts_nothing_and_says_so(web: Web) -> None:
    assert httpx.post(f"{web.url}/assets/a", content=JPEG).status_code == 202
    aside = web.home / "aside"
    (web.home / "staging" / "incoming").rename(aside)
    answer = httpx.post(f"{web.url}/assets/a", content=JPEG)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    ready = httpx.get(f"{web.url}/readyz?for=accept")
    assert (ready.status_code, ready.json()["capabilities"]["accept"]) == (503, False)
    assert "incoming" in ready.json()["dependencies"]["staging"]["detail"]
    aside.rename(web.home / "staging" / "incoming")
    assert httpx.post(f"{web.url}/assets/a", content=JPEG).status_code == 202


def test_the_page_says_what_this_is(shared_web: Web) -> None:
    answer = httpx.get(shared_web.url)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "Millrace" in answer.text
    assert "/documentation" in answer.text
    assert "make up" in httpx.get(f"{shared_web.url}/documentation").text


def test_failures_without_a_database_are_unavailable(shared_web: Web) -> None:
    answer = httpx.get(f"{shared_web.url}/failures")
    assert (answer.status_code, answer.json()["code"]) == (503, "database-unavailable")
