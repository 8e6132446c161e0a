"""The variants task: everything due of one source blob."""

from __future__ import annotations

from pipeline.derive import derive
from tasks.base import MillraceTask, services
from tasks.celery_app import app


@app.task(name="derive", base=MillraceTask)  # type: ignore[untyped-decorator]  # celery has no types
def run(source: str) -> None:
    try:
        sha256 = bytes.fromhex(source)
    except ValueError:
        return  # no id: a message is input too
    while derive(services(), sha256):
        pass
