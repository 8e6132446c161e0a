"""Odd input on every route there is: bodies without end, deep JSON, numbers and dates out of range, text that is none.
The answer is a 4xx that says why, never a 5xx, and the process does not grow."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.body import BODY_MAX
from app.web import create
from pipeline.jobs.registry import KINDS
from tests.app.server import Web, head, read_answer, running
from tests.app.test_memory import high_water_mark
from tests.pictures import encoded, photo
from tests.pipeline.line import Line

JSON = "application/json"
ZERO = UUID(int=0)


@dataclass
class Served:
    web: Web
    routes: list[tuple[str, str]]
    client: httpx.Client

    @property
    def no_uploads(self) -> list[tuple[str, str]]:
        return [
            (method, path) for method, path in self.routes if not (method == "POST" and path.startswith("/assets/"))
        ]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, shared_database_url: str) -> Iterator[Served]:
    """With every route of the application, filled in so that it is found."""
    home = tmp_path_factory.mktemp("web")
    line = Line(home, shared_database_url)
    asset = line.bring("/bare/a", encoded(photo(), "JPEG"))
    job = line.services.metadata.jobs.create("verify", KINDS["verify"].check(line.services, {}))
    fill = {"upload_id": asset.id, "failure_id": uuid4(), "job_id": job.id, "wish": "pause"}
    routes = []
    for rule in create(line.services).url_map.iter_rules():
        for rest in ("bare/a", "bare/a/-/content", "bare/a/-/entry/0/info") if "_rest" in rule.arguments else ("",):
            path = rule.rule
            for name, value in {**fill, "_rest": rest}.items():
                path = path.replace(
                    next((part for part in _parts(path) if part.endswith(f":{name}>")), "<>"), str(value)
                )
            assert "<" not in path, f"what is {rule.rule}?"
            routes += [(method, path) for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"})]
    assert len(routes) > 15
    server = Web(home, {"MILLRACE_DATABASE_URL": shared_database_url})
    with running(server) as web, httpx.Client(base_url=web.url, timeout=30) as client:
        yield Served(web, routes, client)
    line.close()


def _parts(path: str) -> list[str]:
    return [f"<{part.partition('>')[0]}>" for part in path.split("<")[1:]]


def cursor(moment: str) -> str:
    return base64.urlsafe_b64encode(f"{moment} {ZERO}".encode()).decode().rstrip("=")


NAMES = ("after", "limit", "at", "for", "w", "h", "fit", "format", "q", "enlarge", "profile", "purge", "x")
VALUES = (
    cursor("9999-12-31T23:59:59-23:59"),
    cursor("9999-12-31T23:59:59.999999-00:00"),
    cursor("0001-01-01T00:00:00+23:59"),
    cursor("0001-01-01T00:00:00"),
    cursor("2026-W01-1T00:00:00+00:00"),
    "",
    "-1",
    "0",
    "000000100" + "0" * 5000,
    "9" * 5000,
    "1e308",
    "NaN",
    "\u0663",
    "\0",
    "\U0001f600" * 20,
    "[" * 6000,
)
RAW = ("%FF", "%ED%A0%80", "%", "%00", "=", "&&&", "a" * 7000, "&".join("w=1" for _ in range(300)))


def odd_queries() -> list[str]:
    return [str(httpx.QueryParams({name: value})) for name in NAMES for value in VALUES] + list(RAW)


def test_an_odd_query_is_never_a_fault_of_ours(served: Served) -> None:
    queries = odd_queries()
    wrong = []
    for method, path in served.routes:
        mine = queries if path in ("/failures", "/bare/a/-/content") or path.endswith("content") else queries[::7]
        for query in mine:
            answer = served.client.request(method, f"{path}?{query}")
            if answer.status_code >= 500 and path != "/readyz":  # Redis is away here
                wrong.append((method, path, query[:60], answer.status_code))
    assert wrong == []


@pytest.mark.parametrize("chunked", [False, True])
def test_no_body_but_an_uploads_is_read_without_end(served: Served, chunked: bool) -> None:
    """What is not read at all, and so answered without it, ends with its connection."""
    [worker] = served.web.workers()
    before = high_water_mark(worker)
    block = b" " * (1 << 20)
    answers = {}
    for method, path in served.no_uploads:
        length: dict[str, object] = {"Transfer_Encoding": "chunked"} if chunked else {"Content_Length": 64 << 20}
        with served.web.connect() as connection:
            connection.sendall(head(method, path, Content_Type=JSON, **length))
            try:
                for _ in range(64):
                    connection.sendall(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
            except OSError:  # answered and closed before all of it was sent
                pass
            try:
                answers[method, path] = read_answer(connection).status
            except OSError:  # our kernel threw the answer away with what it could not send
                answers[method, path] = 0
    assert high_water_mark(worker) - before < 48 << 20
    if not chunked:
        assert {status for status in answers.values() if status} == {413}
    assert answers["POST", "/jobs"] in (413, 0)


def test_a_body_at_its_bound(served: Served) -> None:
    """One byte decides, whether the length is said before or not."""
    job = json.dumps({"kind": "verify"}).encode()
    for size, status in ((BODY_MAX, 202), (BODY_MAX + 1, 413)):
        body = job.ljust(size)
        for content in (body, iter([body[:1000], body[1000:]])):
            answer = served.client.post("/jobs", content=content, headers={"Content-Type": JSON})
            assert answer.status_code == status, answer.text
            if status == 413:
                assert answer.json()["code"] == "too-large"
                assert str(BODY_MAX) in answer.json()["detail"]


DEEP = [b"[" * 60_000, b'{"a":' * 60_000, b'{"kind": "verify", "arguments": ' * 9_000]
NO_JSON = [
    b"",
    b"{",
    b"\xff\xfe",
    b'"\\ud800"',
    b'{"kind": "verify", "kind": "gc"}',
    b"9" * 10_000,
    b'{"kind": "verify", "arguments": {"maxMbS": NaN}}',
    b'{"kind": "verify", "arguments": {"maxMbS": Infinity}}',
    b'{"kind": "verify", "arguments": {"maxMbS": 1e999}}',
    b'{"kind": "verify", "arguments": {"maxMbS": 1e308}}',
    b'{"kind": "verify", "arguments": {"maxMbS": 1e-308}}',
    b'{"kind": "verify", "arguments": {"maxMbS": 0}}',
    b'{"kind": "verify", "arguments": {"maxMbS": ' + b"9" * 400 + b"}}",
    b'{"kind": "verify", "arguments": {"maxMbS": ' + b"9" * 5000 + b"}}",
    b'{"kind": "verify", "arguments": {"stores": ["\\u0000"]}}',
    b'{"kind": "verify", "arguments": {"stores": ["\\ud800"]}}',
    b'{"kind": "verify", "arguments": {"\\ud800": 1}}',
    b'{"kind": "verify", "arguments": {"' + b"A" * 100_000 + b'": 1}}',
    b'{"kind": "gc", "arguments": {"graceSeconds": 1e308}}',
    b'{"kind": "gc", "arguments": {"graceSeconds": -1}}',
    b'{"kind": "restore", "arguments": {"sha256": "' + b"A" * 64 + b'"}}',
    b'{"kind": "\\u0000"}',
]


@pytest.mark.parametrize("body", DEEP + NO_JSON, ids=lambda body: f"{body[:45]!r}")
def test_json_that_cannot_be_meant_is_refused(served: Served, body: bytes) -> None:
    answer = served.client.post("/jobs", content=body, headers={"Content-Type": JSON})
    assert answer.status_code == 400, answer.text
    assert len(answer.content) < 4096, "an answer repeats what came"
    form: dict[str, Any] = {"asset": encoded(photo(), "JPEG"), "metadata": (None, body)}
    assert served.client.post("/assets/bare/b", files=form).status_code == 400


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
)
names = st.sampled_from(
    ["stores", "source", "target", "maxMbS", "graceSeconds", "sha256", "structureOnly", "deleteSource"]
)
jobs = st.fixed_dictionaries(
    {"kind": st.one_of(st.sampled_from(sorted(KINDS)), st.text(string.printable, max_size=9))},
    optional={
        "arguments": st.one_of(
            st.dictionaries(names, st.one_of(anything, st.lists(st.just("main"))), max_size=3), anything
        )
    },
)


def test_any_json_makes_a_job_or_is_refused(served: Served) -> None:
    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(jobs, anything))
    def ask(body: Any) -> None:
        content = json.dumps(body).encode()
        answer = served.client.post("/jobs", content=content, headers={"Content-Type": JSON})
        assert answer.status_code in (202, 400), (content, answer.text)

    ask()
