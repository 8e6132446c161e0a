from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core import failpoints
from core.sections import Locks
from pipeline.stores import recognition
from tests.pipeline.line import Line


@pytest.fixture
def locks() -> str:
    """The kind: see `under_every_lock`."""
    return "local"


@pytest.fixture
def line(tmp_path: Path, database_url: str, locks: str) -> Iterator[Line]:
    made = Line(tmp_path, database_url, locks=Locks.model_validate({"kind": locks, "retry_delay_ms": 1}))
    yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test that names this waits for a second look at a store, nor for what was seen of it to be old."""
    monkeypatch.setattr(recognition, "REFUSED_SECONDS", 0)
    monkeypatch.setattr(recognition, "FRESH_SECONDS", 0)


@pytest.fixture
def arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Turns failpoints on in this process (and its children) and arms them."""
    directory = tmp_path / "failpoints"
    directory.mkdir()
    monkeypatch.setattr(failpoints, "_DIRECTORY", str(directory))
    monkeypatch.setenv("MILLRACE_FAILPOINTS", str(directory))

    def arm(name: str, action: str, *, always: bool = False) -> None:
        (directory / name).write_text(action + ("\nalways" if always else ""))

    return arm
