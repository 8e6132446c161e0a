"""The variants task: everything due of one source blob."""

from __future__ import annotations

from functools import partial
from typing import Any

from core.queues import INTERACTIVE
from pipeline.variants.derive import derive
from tasks.base import MillraceTask, as_blob_hash, services
from tasks.celery_app import app
from tasks.lanes import Work


class DeriveTask(MillraceTask):
    abstract = True

    def lane(self, queue: str) -> str:
        return queue

    def work(self, queue: str, arguments: tuple[Any, ...]) -> Work:
        return partial(self.run, *arguments, apart=queue == INTERACTIVE)


@app.task(name="derive", base=DeriveTask)  # type: ignore[untyped-decorator]  # celery has no types
def run(source: str, *, apart: bool = False) -> None:
    sha256 = as_blob_hash(source)
    while sha256 is not None and derive(services(), sha256, apart=apart):
        pass
