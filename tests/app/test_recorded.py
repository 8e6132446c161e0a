"""Uploads and failures once PostgreSQL knows them. The ingests are done by the test itself, beside the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from threading import Thread
from uuid import UUID, uuid4

import httpx
import psycopg2
import pytest

from core import clock
from core.model import FailureReason
from tests.app.server import Web, running
from tests.pictures import encoded, photo
from tests.pipeline.line import Line

JPEG = encoded(photo(), "JPEG")


@dataclass
class Pair:
    web: Web
    line: Line

    def post(self, path: str = "/bare/a", body: bytes = JPEG, **headers: str) -> httpx.Response:
        return httpx.post(f"{self.web.url}/assets{path}", content=body, headers=headers, timeout=40)

    def get(self, location: str) -> httpx.Response:
        return httpx.get(self.web.url + location)

    def ingest(self, answer: httpx.Response) -> None:
        self.line.ingest(UUID(answer.json()["id"]))
        self.line.services.staging.empty_trash(timedelta(0))


@pytest.fixture(scope="module")
def only_pair(tmp_path_factory: pytest.TempPathFactory, shared_database_url: str) -> Iterator[Pair]:
    home = tmp_path_factory.mktemp("recorded")
    line = Line(home, shared_database_url)
    with running(Web(home, {"MILLRACE_DATABASE_URL": shared_database_url})) as web:
        yield Pair(web, line)
    line.close()


@pytest.fixture
def pair(only_pair: Pair) -> Iterator[Pair]:
    """Give every test the same pair: each uploads to a path of its own, and leaves no failure behind."""
    yield only_pair
    for entry in (only_pair.web.home / "staging" / "quarantine").iterdir():
        entry.unlink()
    execute(only_pair, "DELETE FROM failure")


def test_waiting_ends_with_201_and_the_entry(pair: Pair) -> None:
    answers: list[httpx.Response] = []
    client = Thread(target=lambda: answers.append(pair.post("/bare/waited", Prefer="wait=30")))
    client.start()
    staging = pair.line.services.staging
    while not (found := list(staging.entries())):
        pass
    while pair.line.ingest(found[0]).value == "gone" and staging.look(found[0]):
        pass
    client.join()
    [answer] = answers
    assert (answer.status_code, answer.headers["Location"]) == (201, "/assets/bare/waited/-/entry/0")
    assert answer.headers["Preference-Applied"] == "wait=30"
    told = answer.json()
    assert (told["state"], told["entry"], told["links"]["asset"]) == ("ready", 0, "/assets/bare/waited/-/entry/0")


def test_an_ingest_is_known_by_its_row(pair: Pair) -> None:
    answer = pair.post("/a/b")
    pair.ingest(answer)
    told = pair.get(answer.headers["Location"]).json()
    assert (told["state"], told["entry"], told["attempts"]) == ("ready", 0, 1)
    assert told["links"]["asset"] == "/assets/a/b/-/entry/0"
    assert told["times"]["stored"] >= told["times"]["accepted"]
    assert {one["profile"]: one["state"] for one in told["variants"]} == {"thumb": "ready", "square": "ready"}
    assert pair.get(told["links"]["asset"] + "/content").content == JPEG


def test_nobody_knows_what_never_was(pair: Pair) -> None:
    unknown = f"/ingests/{uuid4()}"
    assert pair.get(unknown).status_code == 404
    assert pair.get(f"{unknown}?at={pair.web.staging.host_id}").status_code == 404
    assert pair.get(f"{unknown}?at={uuid4()}").status_code == 404, "such an id is none of an upload"
    assert pair.get(f"/ingests/{UUID(int=(1 << 128) - 1 - (8 << 76))}?at={uuid4()}").status_code == 404
    assert pair.get(f"{unknown}?at=x").status_code == 400
    assert pair.get(f"{unknown}?colour=red").status_code == 400


def test_a_key_that_only_the_database_knows(pair: Pair) -> None:
    first = pair.post(**{"Idempotency-Key": "k"})
    pair.ingest(first)
    again = pair.post(**{"Idempotency-Key": "k", "Prefer": "wait=5"})
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    assert again.headers["Location"] == "/assets/bare/a/-/entry/0"
    other = pair.post(body=encoded(photo(9, 9), "JPEG"), **{"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-conflict")
    assert httpx.delete(f"{pair.web.url}/assets/bare/a/-/entry/0").status_code == 204
    assert pair.post(**{"Idempotency-Key": "k"}).json()["id"] == first.json()["id"]
    assert list(pair.web.staging.entries()) == []


def failed(pair: Pair) -> str:
    upload_id = UUID(pair.post().json()["id"])
    staging = pair.line.services.staging
    with staging.claim(upload_id) as claim:  # type: ignore[union-attr]
        claim.start()
        claim.quarantine(FailureReason("bad-image", "the picture is cut"))
    pair.line.services.metadata.failures.reconcile(staging.host_id, list(staging.quarantined()))
    return str(upload_id)


def test_failures_are_shown_newest_first_page_by_page(pair: Pair) -> None:
    ids = [failed(pair) for _ in range(5)]
    shown, following = [], "/failures?limit=2"
    while following:
        page = pair.get(following).json()
        assert len(page["failures"]) <= 2
        shown += page["failures"]
        following = page["next"]
    assert [one["id"] for one in shown] == ids[::-1]
    assert shown[0]["failure"] == {"class": "bad-image", "detail": "the picture is cut"}
    assert shown[0]["path"] == "/bare/a"
    assert pair.get(shown[0]["links"]["self"]).json() == shown[0]
    assert pair.get(f"/failures/{uuid4()}").status_code == 404
    assert pair.get("/failures?limit=0").status_code == 400
    assert pair.get("/failures?after=nonsense").status_code == 400


def test_a_wish_waits_on_the_row(pair: Pair) -> None:
    first, second = failed(pair), failed(pair)
    answer = httpx.post(f"{pair.web.url}/failures/{first}/retry")
    assert (answer.status_code, answer.json()["wish"]) == (202, "retry")
    answer = httpx.delete(f"{pair.web.url}/failures/{second}")
    assert (answer.status_code, answer.json()["wish"]) == (202, "discard")
    wishes = pair.line.services.metadata.failures.wishes(pair.web.staging.host_id)
    assert {(str(one.id), one.wish) for one in wishes} == {(first, "retry"), (second, "discard")}
    assert httpx.post(f"{pair.web.url}/failures/{uuid4()}/retry").status_code == 404


def test_what_is_said_of_an_upload_that_only_another_host_can_know(pair: Pair) -> None:
    """Ask for an upload that another host accepted and has not announced: it may have died before it could, or be
    about to announce it."""
    limit = timedelta(seconds=pair.line.settings.work.host_lost_seconds)
    announce = pair.line.services.metadata.uploads.announce
    for heard, accepted in product(("never", "long ago", "lately", "all of it"), ("long ago", "just now")):
        host_id = uuid4()
        began = clock.now() - (limit + timedelta(seconds=60) if accepted == "long ago" else timedelta(0))
        link = f"/ingests/{_upload_id(began)}?at={host_id}"
        if heard != "never":
            announce(host_id, [], told_until=announce(host_id, []) if heard == "all of it" else None)
        if heard == "long ago":
            _silence(pair, host_id, limit)
        answer = pair.get(link)
        if heard == "long ago" or (heard, accepted) == ("never", "long ago"):
            told = answer.json()
            assert (told["state"], told["failure"]["class"], told["assetId"]) == ("failed", "host-lost", None)
            assert abs(datetime.fromisoformat(told["times"]["accepted"]) - began) < timedelta(seconds=1)
        elif (heard, accepted) == ("all of it", "long ago"):
            assert answer.status_code == 404, "the host lives and has told of all that it has"
        else:
            assert (answer.status_code, answer.json()["code"]) == (503, "ask-staging-host")
            assert "Retry-After" in answer.headers
        announced = announce(host_id, [])  # it is there (again)
        assert pair.get(link).status_code == (404 if (heard, accepted) == ("all of it", "long ago") else 503)
        announce(host_id, [], told_until=announced)
        assert pair.get(link).status_code == (404 if accepted == "long ago" else 503)


def _upload_id(accepted_at: datetime) -> UUID:
    return UUID(int=(int(accepted_at.timestamp() * 1000) << 80) | 7 << 76 | 2 << 62 | uuid4().int & ((1 << 62) - 1))


def _silence(pair: Pair, host_id: UUID, limit: timedelta) -> None:
    execute(pair, "UPDATE host SET last_seen = now() - 2 * %s WHERE id = %s", limit, str(host_id))


def execute(pair: Pair, statement: str, *arguments: object) -> None:
    assert pair.line.settings.database_url is not None
    connection = psycopg2.connect(pair.line.settings.database_url.get_secret_value())
    with connection, connection.cursor() as cursor:
        cursor.execute(statement, arguments)
    connection.close()
