"""Which queue no worker reads, and since when: a table over all that may be missing, on a real PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import combinations
from uuid import UUID, uuid4

from core.queues import OF_THE_FLEET, SILENT, ingest_queue, sweep_of, unread
from core.sections import Retention
from metadata.facade import Metadata
from tests.metadata.conftest import Query

HERE, THERE = UUID(int=1), UUID(int=2)
ALL = [*sorted(OF_THE_FLEET), *(of(host) for host in (HERE, THERE) for of in (ingest_queue, sweep_of))]

START = {
    "beat": "no beat runs {} (start `millrace beat`)",
    "maintenance": "no worker reads the queue maintenance {} (start `millrace worker maintenance`)",
    "variants.eager": "no worker reads the queue variants.eager {} (start `millrace worker variants`)",
    "variants.interactive": "no worker reads the queue variants.interactive {} (start `millrace worker interactive`)",
    ingest_queue(HERE): f"no worker reads the queue ingest.{HERE} {{}} (start `millrace worker ingest`)",
    sweep_of(HERE): f"no sweep runs on host {HERE} {{}} (start `millrace sweep`)",
}


def speak(metadata: Metadata, *names: str) -> None:
    if read := [name for name in names if not name.startswith("sweep")]:
        metadata.readers.note(read)
    for host in (HERE, THERE):
        if sweep_of(host) in names:
            metadata.uploads.announce(host, [])


def silence(query: Query, *names: str, seconds: int = 300) -> None:
    for name in names:
        table, key = ("host", "'sweep.' || id") if name.startswith("sweep") else ("reader", "queue")
        query(f"UPDATE {table} SET last_seen = last_seen - interval '{seconds} s' WHERE {key} = '{name}'")


def names(metadata: Metadata, here: UUID | None) -> set[str]:
    return {one.name for one in metadata.readers.unread(here)}


def test_exactly_what_is_silent_is_said(metadata: Metadata, query: Query) -> None:
    speak(metadata, *ALL)
    other = {ingest_queue(THERE), sweep_of(THERE)}
    for missing in (*combinations(ALL, 1), *combinations(ALL, 2), ALL):
        assert metadata.readers.unread(HERE) == []
        silence(query, *missing)
        gone = other if other <= set(missing) else set()  # nothing is left of that host, so it lacks nothing
        assert names(metadata, HERE) == set(missing) - gone
        speak(metadata, *missing)


def test_it_says_since_when_and_what_to_start(metadata: Metadata, query: Query) -> None:
    said = {one.name: one for one in metadata.readers.unread(HERE)}
    assert {name: one.summary for name, one in said.items()} == {
        name: words.format("and none was ever seen") for name, words in START.items()
    }
    speak(metadata, *ALL)
    silence(query, *START)
    for one in metadata.readers.unread(HERE):
        assert one.since is not None
        assert one.summary == START[one.name].format(f"since {one.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")


def test_where_no_host_has_a_sweep_the_last_one_is_said(metadata: Metadata, query: Query) -> None:
    assert names(metadata, None) == {*OF_THE_FLEET, "sweep"}
    speak(metadata, *ALL)
    assert names(metadata, None) == set()
    silence(query, *ALL)
    [last] = [one for one in metadata.readers.unread(None) if one.name == "sweep"]
    [(seen,)] = query("SELECT max(last_seen) FROM host")
    assert last.since == seen
    assert last.summary.startswith("no sweep runs on any host since ")


def test_a_young_word_is_not_written_again_and_an_old_one_is(metadata: Metadata, query: Query) -> None:
    def version() -> object:
        return query("SELECT xmin::text FROM reader")

    metadata.readers.note(["beat"])
    first = version()
    metadata.readers.note(["beat"])
    assert version() == first
    silence(query, "beat", seconds=10)
    before = version()
    metadata.readers.note(["beat"])
    assert version() != before


def test_the_bound_is_kept_to_the_second() -> None:
    now = datetime.now(UTC)
    words = {"beat": now - SILENT, "maintenance": now - SILENT - timedelta(seconds=1)}
    said = {one.name for one in unread(words, now, None)}
    assert "beat" not in said
    assert "maintenance" in said


def test_queues_of_hosts_that_are_long_gone_are_forgotten(metadata: Metadata, query: Query) -> None:
    """Check that the queues of the fleet stay, so that it can be said since when no worker reads them."""
    young, old = ingest_queue(uuid4()), ingest_queue(uuid4())
    metadata.readers.note(["beat", young, old])
    metadata.readers.note([young], "here", 3)
    metadata.readers.note([young], "gone", 3)
    silence(query, "beat", old, seconds=(Retention().ingests_days + 1) * 86_400)
    query("UPDATE worker SET last_seen = now() - interval '1 year' WHERE host = 'gone'")
    assert metadata.retention.prune(Retention()) == 2
    assert query("SELECT host FROM worker") == [("here",)]
    assert {str(name) for (name,) in query("SELECT queue FROM reader")} == {"beat", young}
