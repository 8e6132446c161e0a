"""`/jobs`: created, the same work once, told, paused, gone on with and cancelled; nonsense is refused as such."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg2
import pytest

from pipeline.jobs import runner as jobs
from pipeline.jobs.registry import KINDS
from tests.app.server import Web, running
from tests.pictures import encoded, photo
from tests.pipeline.line import Line
from tests.pipeline.test_placement import lined, stores

MOVE: dict[str, Any] = {"kind": "migrate", "arguments": {"source": "main", "target": "far"}}
REFUSED: list[tuple[Any, str]] = [
    ({"kind": "dance"}, "no kind of job"),
    ({"kind": 5}, '"kind" is a string'),
    ({"kind": "migrate", "arguments": []}, '"arguments" an object'),
    ({"kind": "migrate", "more": 1}, "JSON object"),
    ([], "JSON object"),
    ({"kind": "migrate", "arguments": {"source": "main"}}, "target"),
    ({"kind": "migrate", "arguments": {"source": "main", "target": "none"}}, "no store is called 'none'"),
    ({"kind": "migrate", "arguments": {"source": "main", "target": "main"}}, "both source and target"),
    ({"kind": "migrate", "arguments": {**MOVE["arguments"], "maxMbS": "fast"}}, "max_mb_s"),
    ({"kind": "migrate", "arguments": {**MOVE["arguments"], "maxMbS": -1}}, "max_mb_s"),
    ({"kind": "migrate", "arguments": {**MOVE["arguments"], "speed": 1}}, "speed"),
]


@dataclass
class Pair:
    web: Web
    line: Line

    def ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        return httpx.request(method, self.web.url + path, timeout=20, **given)

    def post(self, body: Any = MOVE) -> httpx.Response:
        return self.ask("POST", "/jobs", json=body)

    def told(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", path).json()
        return found


@contextmanager
def paired(home: Path, database_url: str) -> Iterator[Pair]:
    line = lined(home, database_url)
    options = {"MILLRACE_DATABASE_URL": database_url, "MILLRACE_STORES": json.dumps(stores(home))}
    with running(Web(home, options)) as web:
        yield Pair(web, line)
    line.close()


@pytest.fixture(scope="module")
def only_pair(tmp_path_factory: pytest.TempPathFactory, shared_database_url: str) -> Iterator[Pair]:
    with paired(tmp_path_factory.mktemp("jobs"), shared_database_url) as made:
        yield made


@pytest.fixture
def pair(only_pair: Pair, shared_database_url: str) -> Iterator[Pair]:
    """Give every test the same pair, and delete the jobs that the test leaves."""
    yield only_pair
    connection = psycopg2.connect(shared_database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM job")
    connection.close()


@pytest.fixture
def moved_pair(tmp_path: Path, database_url: str) -> Iterator[Pair]:
    """Give the test a pair of its own: a store that was emptied takes nothing more."""
    with paired(tmp_path, database_url) as made:
        yield made


def test_a_job_is_created_and_told_until_it_is_done(moved_pair: Pair) -> None:
    body = encoded(photo(), "JPEG")
    moved_pair.line.bring("/bare/a.jpg", body)
    answer = moved_pair.post(
        {"kind": "migrate", "arguments": {**MOVE["arguments"], "deleteSource": True, "maxMbS": 50}}
    )
    assert answer.status_code == 202
    created = answer.json()
    path = answer.headers["Location"]
    assert path == created["links"]["self"] == f"/jobs/{created['id']}"
    assert (created["state"], created["progress"]) == ("queued", {})
    assert created["arguments"] == {"source": "main", "target": "far", "deleteSource": True, "maxMbS": 50}
    assert jobs.run(moved_pair.line.services, KINDS)
    done = moved_pair.told(path)
    assert (done["state"], done["error"]) == ("done", None)
    assert done["progress"]["doneBytes"] == done["progress"]["totalBytes"] == len(body)
    assert (done["progress"]["copied"], done["progress"]["removed"], done["progress"]["failed"]) == (1, 1, 0)
    assert all(done["times"].values())
    assert moved_pair.told("/jobs")["jobs"] == [done]


def test_the_same_work_is_one_job(pair: Pair) -> None:
    first = pair.post().json()
    assert pair.post().json() == first
    spelled_out = {**MOVE["arguments"], "deleteSource": False, "maxMbS": None}
    assert pair.post({"kind": "migrate", "arguments": spelled_out}).json()["id"] == first["id"]
    assert len(pair.told("/jobs")["jobs"]) == 1


def test_it_is_paused_gone_on_with_and_cancelled(pair: Pair) -> None:
    links = pair.post().json()["links"]
    assert pair.ask("POST", links["pause"]).json()["state"] == "paused"
    assert jobs.run(pair.line.services, KINDS) is None
    assert pair.ask("POST", links["resume"]).json()["state"] == "queued"
    assert pair.ask("POST", links["cancel"]).json()["state"] == "cancelled"
    assert pair.ask("POST", links["resume"]).json()["state"] == "cancelled", "what ended stays as it is"
    assert pair.post().json()["links"] != links


def test_a_wish_that_its_holder_has_not_come_to_is_shown(pair: Pair) -> None:
    for number in range(3):
        pair.line.bring(f"/bare/{number}.jpg", encoded(photo(40 + number, 30), "JPEG"))
    links = pair.post().json()["links"]
    shown = []

    def pause(_job: object) -> None:
        shown.append(pair.ask("POST", links["pause"]).json())

    jobs.run(pair.line.services, KINDS, watch=pause)
    assert [(one["state"], one["wish"]) for one in shown[:1]] == [("running", "pause")]
    assert pair.told(links["self"])["state"] == "paused"


def test_what_cannot_be_done_is_a_problem_that_says_why(pair: Pair) -> None:
    for body, word in REFUSED:
        answer = pair.post(body)
        assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json"), body
        assert word in answer.json()["detail"]
    assert pair.told("/jobs")["jobs"] == []


def test_what_is_no_json_or_too_long_is_refused(pair: Pair) -> None:
    assert pair.ask("POST", "/jobs", content=b"{").status_code == 400
    assert pair.ask("POST", "/jobs", json={"kind": "m" * 70_000}).status_code == 400
    assert pair.ask("POST", "/jobs?fast=1", json=MOVE).status_code == 400


def test_an_unknown_job_or_wish_is_not_found(pair: Pair) -> None:
    for method, what in (("GET", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/cancel")):
        answer = pair.ask(method, f"/jobs/{uuid4()}{what}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
        assert pair.ask(method, f"/jobs/none{what}").status_code == 404
    assert pair.ask("POST", f"{pair.post().json()['links']['self']}/dance").status_code == 404
