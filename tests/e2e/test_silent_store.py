"""A store that is stopped by SIGSTOP, or answers 403, for a while: no accepted upload is lost, no replica row loses its
state, and what other stores have is served throughout. `make soak` does it for a minute each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.silent_store import Scene, endure, scene

SECONDS = 6.0


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("silent")) as made:
        yield made


@pytest.mark.parametrize("fault", ["stopped", "forbidden"])
def test_a_silent_store_costs_no_upload_and_no_replica(found: Scene, fault: str) -> None:
    figures = endure(found, fault, SECONDS)
    assert figures.broken == []
    assert figures.accepted > 0
    assert figures.replicas > 0
    assert figures.reads.get("200", 0) > 0
    assert figures.waiting.get("sync", 0) > 0, "they wait in staging"
    assert sum(figures.stored.get(folder, 0) for folder in ("later", "hybrid")) > 0, "those of other stores do not"
