"""`millrace ingest`: send folders of pictures to a running Millrace, and stay until they are ready."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table

from cli.sanitize import printable
from cli.service_url import service_url
from millrace_client.bulk_upload import BulkUpload, Failed, Result
from millrace_client.http import check_alive, connect
from millrace_client.sources import find

MEGABYTE = 1_000_000
INTERRUPTED = 130


@click.command()
@click.argument("directories", metavar="DIR…", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--into", required=True, metavar="PATH", help="The asset path below which each file keeps its own path.")
@click.option("--url", metavar="URL", help="The service. Default: the one that runs in this MILLRACE_HOME.")
@click.option("--jobs", default=4, show_default=True, type=click.IntRange(1, 64), help="Uploads at a time.")
@click.option("--only", metavar="GLOB", help="Send only files whose name matches, e.g. '*.jpg'.")
@click.option("--again", is_flag=True, help="Send also what was sent before: it becomes a new entry of its path.")
@click.option(
    "--patience",
    default=300.0,
    show_default=True,
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to go on while the service does not take a file, or does not answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def ingest(
    directories: tuple[Path, ...],
    into: str,
    url: str | None,
    jobs: int,
    only: str | None,
    again: bool,
    patience: float,
    as_json: bool,
) -> None:
    """Upload every file below the directories, and wait until all are ready.

    A file's asset path is --into and its path within the directory. The same content under the same path is sent only
    once, however often this runs. Exits with 1 if any file failed, with 130 after Ctrl-C.
    """
    with connect(service_url(url), connections=jobs + 1) as client, _ProgressBars() as bars:
        check_alive(client)
        sources = find(directories, into, only)
        bars.expect(len(sources), sum(source.size for source in sources))
        upload = BulkUpload(client, jobs=jobs, progress=bars, patience_seconds=patience, again=again)
        result = upload.run(sources)
    if as_json:
        click.echo(json.dumps(as_object(result), ensure_ascii=False))
    else:
        _print(result)
    if result.interrupted:
        sys.exit(INTERRUPTED)
    sys.exit(0 if result.complete else 1)


class _ProgressBars:
    """Two bars on the error stream: bytes sent, and files ended. Nothing where that is no terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description:>6}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._lock = threading.Lock()
        self._sent = self._bars.add_task("sent", total=None, told="")
        self._ended = self._bars.add_task("ready", total=None, told="")
        self._files = self._accepted_files = self._ready_files = self._failed_files = self._sent_bytes = 0

    def __enter__(self) -> _ProgressBars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def expect(self, files: int, size: int) -> None:
        self._files = files
        self._bars.update(self._sent, total=max(size, 1))
        self._bars.update(self._ended, total=max(files, 1), told=f"0/{files} files")

    def sent(self, count: int) -> None:
        with self._lock:
            self._sent_bytes += count
        self._tell()

    def accepted(self, count: int = 1) -> None:
        with self._lock:
            self._accepted_files += count
        self._tell()

    def ended(self, *, ready: bool) -> None:
        with self._lock:
            self._ready_files += ready
            self._failed_files += not ready
        told = f"{self._ready_files}/{self._files} files" + (
            f", {self._failed_files} failed" * (self._failed_files > 0)
        )
        self._bars.update(self._ended, completed=self._ready_files + self._failed_files, told=told)

    def _tell(self) -> None:
        speed = (self._bars.tasks[0].speed or 0) / MEGABYTE
        told = f"{self._accepted_files}/{self._files} files, {speed:.1f} MB/s"
        self._bars.update(self._sent, completed=self._sent_bytes, told=told)


def as_object(result: Result) -> dict[str, Any]:
    """What `--json` prints; `mb_per_second` is over the time of sending, in megabytes of 10⁶ bytes."""
    return {
        "files": result.files,
        "bytes": result.accepted_bytes,
        "accepted": result.accepted,
        "ready": result.ready,
        "failed": len(result.failures),
        "waiting": result.waiting,
        "unsent": result.unsent,
        "seconds": round(result.seconds, 3),
        "mb_per_second": round(_speed(result), 3),
        "interrupted": result.interrupted,
        "trouble": result.trouble,
        "failures": [_failure(one) for one in result.failures],
    }


def _failure(failed: Failed) -> dict[str, Any]:
    return {
        "file": printable(str(failed.source.file)),
        "path": printable(failed.source.path),
        "id": failed.upload_id,
        "class": failed.kind,
        "detail": failed.detail,
    }


def _speed(result: Result) -> float:
    return result.accepted_bytes / MEGABYTE / result.sending_seconds if result.sending_seconds else 0.0


def _print(result: Result) -> None:
    console = Console()
    if result.failures:
        failures = Table(Column("file", overflow="fold"), "class", "reason", title="Failures", title_justify="left")
        for one in result.failures:
            failures.add_row(*(escape(printable(text)) for text in (str(one.source.file), one.kind, one.detail)))
        console.print(failures)
    summary = Table("files", "MB", "ready", "failed", "waiting", "not sent", "seconds", "MB/s")
    counts = (result.ready, len(result.failures), result.waiting, result.unsent)
    summary.add_row(
        str(result.files),
        f"{result.accepted_bytes / MEGABYTE:.1f}",
        *(str(count) for count in counts),
        f"{result.seconds:.1f}",
        f"{_speed(result):.1f}",
    )
    console.print(summary)
    if result.trouble:
        console.print(f"Ended early: {escape(printable(result.trouble))}")
    if result.waiting:
        console.print("What waits is safe and will be worked on; run the same command again to watch it.")
