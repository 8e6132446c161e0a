from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.app.server import Web, running


@pytest.fixture(scope="module")
def shared_web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """One server for a whole module of tests that leave nothing behind in it."""
    with running(Web(tmp_path_factory.mktemp("web"))) as web:
        yield web


@pytest.fixture
def start_web(tmp_path: Path) -> Iterator[Callable[..., Web]]:
    """Starts servers with settings of the test's own; they end with it."""
    with ExitStack() as stack:

        def start(home: Path | None = None, **options: object) -> Web:
            settings = {f"MILLRACE_{name}": str(value) for name, value in options.items()}
            return stack.enter_context(running(Web(home or tmp_path / "home", settings)))

        yield start


@pytest.fixture
def web(start_web: Callable[..., Web]) -> Web:
    return start_web()
