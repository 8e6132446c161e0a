"""Fixtures that start the real services, once for each test process, as children that die with it."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
import redis

from supervise.embedded_postgres import Postgres
from supervise.embedded_valkey import Valkey
from supervise.embedded_valkey import free_port as find_free_port
from supervise.processes import start, stop

_numbers = itertools.count()

# A job in the background of a script inherits an ignored SIGINT, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Each call of httpx reads all the certificates it knows of (27 ms of work), where no server of the tests has one.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)


@pytest.fixture(scope="session")
def services_directory() -> Iterator[Path]:
    """In memory where there is a tmpfs, and short enough for sockets."""
    memory = Path("/dev/shm")
    made = tempfile.mkdtemp(prefix="millrace-test-", dir=memory if memory.is_dir() else None)
    yield Path(made)
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(services_directory: Path) -> Iterator[str]:
    """A server of this test process; the URL names its maintenance database."""
    server = Postgres(services_directory / "postgres", services_directory / "run", durable=False)
    child = start(server, services_directory / "postgres.log")
    yield server.url_of("postgres")
    stop([child])


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> str:
    from metadata import migrate

    url = _create(postgres_url, "migrated")
    migrate.upgrade(url)
    return "migrated"


@pytest.fixture
def make_database(postgres_url: str) -> Iterator[Callable[[str], str]]:
    """Makes a database from the named template and returns its URL; gone after the test."""
    with _databases(postgres_url) as make:
        yield make


@contextmanager
def _databases(postgres_url: str) -> Iterator[Callable[[str], str]]:
    names: list[str] = []

    def make(template: str = "template1") -> str:
        names.append(f"test_{next(_numbers)}")
        return _create(postgres_url, names[-1], template)

    yield make
    for name in names:
        _execute(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def empty_database_url(make_database: Callable[[str], str]) -> str:
    return make_database("template1")


@pytest.fixture
def database_url(make_database: Callable[[str], str], template_database: str) -> str:
    """A database of this test alone, migrated."""
    return make_database(template_database)


@pytest.fixture(scope="module")
def shared_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A migrated database of a module of tests that do not mind each other's rows."""
    with _databases(postgres_url) as make:
        yield make(template_database)


@pytest.fixture(scope="session")
def valkey_url(services_directory: Path) -> Iterator[str]:
    server = Valkey(services_directory / "valkey", services_directory / "run")
    child = start(server, services_directory / "valkey.log")
    yield server.url
    stop([child])


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """The test process's server, emptied."""
    client = redis.Redis.from_url(valkey_url)
    client.flushall()
    client.close()
    return valkey_url


@pytest.fixture
def free_port() -> int:
    return find_free_port()


def _create(server: str, name: str, template: str = "template1") -> str:
    # By copying files: with no syncs, and in memory, that takes half of what it takes to log every page.
    _execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


def _execute(url: str, statement: str) -> None:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        connection.cursor().execute(statement)
    finally:
        connection.close()
