"""The ingest task of a host: one entry, then as many of the next ones as fit into a little while."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from pipeline.ingest import Outcome, ingest
from tasks.base import MillraceTask, as_upload_id, services
from tasks.celery_app import app

TURN_SECONDS = 30
"""How long one message may keep a worker busy with further entries: short against every limit on a task."""

BATCH = 32
"""Listing a backlog of 100,000 costs something, so it is not done for each entry. Who comes second finds it claimed."""


@app.task(name="ingest", base=MillraceTask)  # type: ignore[untyped-decorator]  # celery has no types
def run(upload_id: str) -> None:
    found = as_upload_id(upload_id)
    batch = [found] if found else []
    ends = time.monotonic() + TURN_SECONDS
    while batch:
        for next_id in batch:
            if ingest(services(), next_id) is Outcome.WAITING or time.monotonic() > ends:
                return
        batch = services().staging.due(BATCH, datetime.now(UTC), after=batch[-1])
