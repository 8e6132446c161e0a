"""`worker` and `beat` as Celery's own console script runs them: `python -Pm tasks.celery_program worker …`.

The console script loads all of Celery's commands first, and for one of them a library of terminals: a tenth of a start,
and of the memory of each process.
"""

from __future__ import annotations

import gc
import sys

from core.loading import uncollected


def main() -> None:
    command, *words = sys.argv[1:]
    with uncollected():  # so all is loaded here, and before a worker forks
        from celery.bin.base import CLIContext
        from celery.bin.beat import beat
        from celery.bin.worker import worker

        from tasks import derive, ingest, maintenance  # noqa: F401 - the tasks
        from tasks.celery_app import app
    gc.freeze()  # a collection in a process that was forked would copy the pages that it shares
    context = CLIContext(app=app, no_color=True, workdir=None, quiet=True)  # a banner is no line of a JSON log
    {"worker": worker, "beat": beat}[command].main(words, f"celery {command}", obj=context)


if __name__ == "__main__":
    main()
