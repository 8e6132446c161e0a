"""Which installation a process belongs to, whatever is away."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from coordination import later
from coordination.locks import Outcome
from core.errors import DatabaseUnavailable
from core.sections import Cache
from pipeline import installation as module
from pipeline.installation import await_redis_prefix, redis_prefix
from storage.staging import installation
from tests.pipeline.line import Line

NOBODY = "postgresql:///nobody?host=/nonexistent"


def test_a_new_database_gets_one_id_whoever_asks_first(tmp_path: Path, database_url: str) -> None:
    lines = [Line(tmp_path / str(number % 2), database_url) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        said = set(pool.map(lambda line: line.services.installation.ask(), lines))
    for line in lines:
        assert line.services.installation.known() == installation.kept(line.settings)
        assert {line.services.installation.known()} == said
        line.close()


def test_a_host_that_heard_of_it_needs_no_postgresql(tmp_path: Path, database_url: str) -> None:
    before = Line(tmp_path, database_url)
    assert before.services.installation.known() is None
    said = before.services.installation.ask()
    before.close()
    after = Line(tmp_path, NOBODY)
    assert after.services.installation.known() == after.services.installation.ask() == said
    after.close()


def test_a_host_that_never_heard_of_it_says_so(tmp_path: Path) -> None:
    line = Line(tmp_path, NOBODY)
    assert line.services.installation.known() is None
    with pytest.raises(DatabaseUnavailable):
        line.services.installation.ask()
    line.close()


def test_the_database_is_right_and_the_host_follows(
    tmp_path: Path, database_url: str, make_database: Callable[[str], str], template_database: str
) -> None:
    first = Line(tmp_path, database_url)
    other = Line(tmp_path, make_database(template_database))
    said = first.services.installation.ask()
    assert other.services.installation.known() == said, "as long as nothing else is heard"
    assert other.services.installation.ask() == installation.kept(other.settings) != said
    first.close()
    other.close()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"installation": "x"}', '{"installation": 1}'])
def test_what_cannot_be_read_is_written_anew(line: Line, text: str) -> None:
    installation.keep(line.settings, uuid4())
    (line.settings.staging_path / installation.NAME).write_text(text)
    assert installation.kept(line.settings) is None
    assert line.services.installation.ask() == installation.kept(line.settings)


def test_a_host_that_cannot_keep_it_works_on(line: Line) -> None:
    shutil.rmtree(line.settings.staging_path, ignore_errors=True)
    line.settings.staging_path.write_text("a file")
    assert line.services.installation.ask() == line.services.installation.known()
    assert installation.kept(line.settings) is None


def test_a_process_without_staging_knows_its_queues_once_postgresql_told_it(line: Line) -> None:
    """Take the staging away, as the rendering workers and beat of docker-compose.yml have none: their containers are
    read-only."""
    shutil.rmtree(line.settings.staging_path, ignore_errors=True)
    line.settings.staging_path.write_text("a file")
    assert redis_prefix(line.settings) is None
    said = await_redis_prefix(line.settings)
    assert said == redis_prefix(line.settings) == f"{line.settings.key_prefix}{line.services.installation.ask()}:"


def test_a_process_that_began_before_its_host_knew_shares_locks_and_cache_without_a_restart(
    tmp_path: Path, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(later, "ASK_SECONDS", 0.0)
    hosts = [Line(tmp_path / name, database_url, redis_url=redis_url, cache=Cache(kind="redis")) for name in ("a", "b")]
    ours, theirs = (host.services for host in hosts)
    ours.cache.put("key", "before", 60)
    assert theirs.cache.get("key") is None
    for services in (ours, theirs):
        services.installation.ask()
    ours.cache.put("key", "after", 60)
    assert theirs.cache.get("key") == "after"
    with ours.locks.acquire("name"):
        assert theirs.locks.acquire("name").outcome is Outcome.TAKEN
    for host in hosts:
        host.close()


def test_what_could_not_be_kept_is_kept_later(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_SECONDS", 0)
    staging = line.settings.staging_path
    shutil.rmtree(staging, ignore_errors=True)
    staging.write_text("no room")
    said = line.services.installation.ask()
    staging.unlink()
    assert line.services.installation.ask() == said == installation.kept(line.settings)


def test_a_death_in_between_leaves_the_old_one_or_the_new(line: Line, arm: Callable[..., None]) -> None:
    old, new = uuid4(), UUID(int=7)
    installation.keep(line.settings, old)
    arm("installation.before-rename", "errno EIO")
    with pytest.raises(OSError, match=r"installation\.before-rename|Input/output"):
        installation.keep(line.settings, new)
    assert installation.kept(line.settings) == old
    assert list((line.settings.staging_path / "incoming").iterdir()) == []
