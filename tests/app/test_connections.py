"""Three hosts and a PostgreSQL with fewer connections than they could use."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import psycopg2
import pytest
from psycopg2.extensions import connection

from core.findings import Finding, Grade
from core.settings import Settings
from database.transactions import Database
from metadata import migrate
from metadata.probes import PostgresProbe
from pipeline import connections
from pipeline.uploads.ingest import Outcome
from supervise.embedded_postgres import Postgres
from supervise.processes import start, stop
from tests.app.server import Web, head, running
from tests.pictures import encoded, photo
from tests.pipeline.line import Line

LIMIT = 60
READERS = 75
OPENED = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'millrace'"


@pytest.fixture(scope="module")
def narrow_url(services_directory: Path) -> Iterator[str]:
    directory = services_directory / "narrow"
    server = Postgres(directory, directory.with_name("nrun"), durable=False, options=["-c", f"max_connections={LIMIT}"])
    child = start(server, services_directory / "narrow.log")
    migrate.upgrade(server.url)
    yield server.url
    stop([child])


def test_after_a_burst_of_readers_ingest_goes_on(narrow_url: str, tmp_path: Path) -> None:
    """Let each web server alone open half of all connections, while its readers hang until it has them."""
    options = {"MILLRACE_DATABASE_URL": narrow_url, "MILLRACE_WEB__POOL": "32", "MILLRACE_WEB__DATABASE_SECONDS": "20"}
    homes = [tmp_path / f"host-{number}" for number in range(3)]
    store = {"kind": "filesystem", "root": str(tmp_path / "store")}
    lines = [Line(home, narrow_url, stores={"main": store}) for home in homes]
    uploads = [one.accept(f"/a/{number}", encoded(photo(200 + number), "JPEG")) for number, one in enumerate(lines)]
    over = threading.Event()

    def read(web: Web) -> None:
        while not over.is_set():
            with suppress(OSError):
                web.exchange(head("GET", "/assets/none", Connection="close"))

    with ExitStack() as ended:
        webs = [ended.enter_context(running(Web(home, options))) for home in homes]
        threads = [threading.Thread(target=read, args=(webs[number % 3],), daemon=True) for number in range(READERS)]
        holds, counts = (ended.enter_context(closing(psycopg2.connect(narrow_url))) for _ in range(2))
        holds.cursor().execute("LOCK TABLE asset")  # so no read ends
        ended.callback(over.set)
        for thread in threads:
            thread.start()
        _wait_until_all_are_in_use(counts)
        holds.rollback()
        over.set()
        for thread in threads:
            thread.join()
        began = time.monotonic()
        for line in lines:
            line.services.metadata.ping()
        assert time.monotonic() - began < 5
        assert [line.ingest(upload.id) for line, upload in zip(lines, uploads, strict=True)] == [Outcome.STORED] * 3
        assert all(httpx.get(f"{web.url}/assets/none", timeout=20).status_code == 404 for web in webs)
    for line in lines:
        line.services.close()


def _wait_until_all_are_in_use(counts: connection) -> None:
    """Wait until all connections but the test's own two are in use."""
    counts.autocommit = True  # within one transaction it would see the same again and again
    found, ends = 0, time.monotonic() + 60
    while found < LIMIT - 2:
        assert time.monotonic() < ends, f"{found} are in use"
        time.sleep(0.02)
        with counts.cursor() as counting:
            counting.execute(OPENED)
            [(found,)] = counting.fetchall()


def test_one_host_opens_29_at_most() -> None:
    assert connections.of_host(Settings()) <= 29


def test_the_doctor_sums_what_all_hosts_may_open(narrow_url: str, tmp_path: Path) -> None:
    def room() -> Finding:
        [check] = [one for one in probe.checks() if one.name == "connections"]
        return check.run()

    database = Database(narrow_url, pool_size=1)
    probe = PostgresProbe(database, connections=connections.of_host(Settings()), durable=False)
    assert room().grade is Grade.OK
    lines = [Line(tmp_path / str(number), narrow_url) for number in range(3)]
    for number, line in enumerate(lines):
        line.services.metadata.uploads.announce(line.services.staging.host_id, [], connections=10 + 10 * number)
    assert (room().grade, room().figures["wanted"], room().figures["room"]) == (Grade.PROBLEM, 60, 57)
    lines[0].services.metadata.uploads.announce(lines[0].services.staging.host_id, [], connections=7)
    lines[1].services.metadata.uploads.announce(lines[1].services.staging.host_id, [])
    assert (room().grade, room().figures["wanted"]) == (Grade.OK, 57)
    readers = lines[0].services.metadata.readers
    readers.note(["variants.interactive"], "box", connections=3)
    readers.note(["variants.eager", "variants.interactive"], "box", connections=5)
    readers.note(["maintenance"], str(lines[0].services.staging.host_id), connections=100)
    assert (room().grade, room().figures["wanted"]) == (Grade.PROBLEM, 65), "where no sweep is each worker counts"
    assert "4 host(s)" in room().detail
    for line in lines:
        line.services.close()
    database.close()


def test_workers_of_every_kind_come_to_what_a_host_counts() -> None:
    settings = Settings()
    kinds = [["ingest.1"], ["variants.interactive"], ["variants.interactive", "variants.eager"], ["maintenance"]]
    web = settings.web.workers * settings.web.pool + connections.SWEEP
    each = [connections.of_worker(settings, names) for names in kinds]
    assert all(each)
    assert sum(each) + web == connections.of_host(settings)
    assert connections.of_worker(settings, [name for names in kinds for name in names]) == sum(each)
