"""The variants task: everything due of one source blob."""

from __future__ import annotations

from pipeline.derive import derive
from tasks.base import MillraceTask, as_blob_hash, services
from tasks.celery_app import app


@app.task(name="derive", base=MillraceTask)  # type: ignore[untyped-decorator]  # celery has no types
def run(source: str) -> None:
    sha256 = as_blob_hash(source)
    while sha256 is not None and derive(services(), sha256):
        pass
