from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.stack import Stack


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One whole Millrace for all the tests here."""
    with Stack(tmp_path_factory.mktemp("e2e")) as made:
        yield made
