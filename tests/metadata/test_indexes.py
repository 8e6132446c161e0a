"""The cost of no query grows with the tables: each goes over indexes, and reads few rows.

Where tables are as small as here, reading all of one is often right, so PostgreSQL is told not to. What it plans by
itself for 2,000,000 replicas is looked at by tests/soak/scale.py.
"""

from __future__ import annotations

import pytest

from metadata.blobs import references, stretches
from metadata.facade import Metadata
from tests.metadata.conftest import Query
from tests.scale.calls import Calls
from tests.scale.filling import fill
from tests.scale.methods import methods, watch
from tests.scale.plans import Plans

REPLICAS = 6_000
FEW = 250
ROWS = 10 * FEW


@pytest.fixture
def filled(metadata: Metadata, database_url: str, query: Query, monkeypatch: pytest.MonkeyPatch) -> Metadata:
    fill(database_url, REPLICAS)
    [[name]] = query("SELECT current_database()")
    for way in ("seqscan", "hashjoin", "mergejoin"):
        query(f'ALTER DATABASE "{name}" SET enable_{way} = off')
    monkeypatch.setattr(stretches, "LENGTH", FEW)
    monkeypatch.setattr(references, "MOST", FEW)
    monkeypatch.setattr(references, "PAGE", 100)
    return metadata


def test_no_query_reads_a_whole_table_or_many_rows(filled: Metadata) -> None:
    every = methods(filled)
    called = watch(filled)
    calls, plans = Calls(filled).all(), Plans.of(filled)
    plans.of_call()
    faults = {}
    for name, call in calls.items():
        call()
        if found := [fault for one in plans.of_call() if (fault := one.fault(rows=ROWS))]:
            faults[name] = found
    assert faults == {}
    assert every - called == set(), "these are not looked at"
