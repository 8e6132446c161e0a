"""The ingest task of a host: a hint names one entry, and the worker goes on from there."""

from __future__ import annotations

from pipeline.uploads.ingest_loop import drain
from tasks.base import MillraceTask, as_upload_id, services
from tasks.celery_app import app


@app.task(name="ingest", base=MillraceTask)  # type: ignore[untyped-decorator]  # celery has no types
def run(upload_id: str) -> None:
    found = as_upload_id(upload_id)
    if found is not None:
        drain(services(), found)
