"""Logs as JSON lines on standard error, with the ids of what is being worked on.

One record is one line: control characters are escaped by JSON itself (DEL too), so no input can forge a line. A
password in a URL never gets out, wherever it was said. Every process calls `configure` once, which also says where it
shows what keeps failing in it (core/troubles.py).

Web threads log every request, so a line is made with few steps and written in one, without a lock: a thread that held
one while it writes would hold up all others.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from core import clock, troubles
from core.settings import Settings

_ids: ContextVar[Mapping[str, Any]] = ContextVar("log_ids", default=MappingProxyType({}))

_where: dict[str, str] = {"host": socket.gethostname()}
"""Of every record: where it comes from, when the lines of many hosts come together."""

_URL_SECRET = re.compile(r"://[^\s/@\"']*:[^\s@\"']*@")

STANDARD_ERROR = 2

_OF_EVERY_RECORD = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
"""What else a record has came with `extra`."""

_encode = json.JSONEncoder(default=str).encode

QUIET = ("boto3", "botocore", "urllib3", "PIL", "pyvips", "amqp", "kombu", "python_multipart", "alembic")
"""Libraries that tell too much, or show what they send, below a warning."""


@contextmanager
def bound(**ids: Any) -> Iterator[None]:
    """Every record of this thread or task carries `ids` until the block ends."""
    token = _ids.set({**_ids.get(), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


def note(**ids: Any) -> None:
    """Add ids that became known within a `bound` block; they go when it ends."""
    _ids.set({**_ids.get(), **ids})


def event(log: logging.Logger, message: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log what `log.log` would, without a record on the way: for what is logged at every request."""
    if not log.isEnabledFor(level):
        return
    if _lines is None:  # this process collects its logs in another way
        log.log(level, message, extra=fields)
        return
    about = {
        "time": clock.now().isoformat(),
        "level": logging.getLevelName(level),
        "logger": log.name,
        "pid": os.getpid(),
        "message": message,
    }
    _lines.write(_text({**about, **_where, **_ids.get(), **fields}))


def of_host(host_id: UUID) -> None:
    """Let every record of this process say from now on that it is of this host."""
    _where["host_id"] = str(host_id)


def _text(fields: Mapping[str, Any]) -> str:
    line = _encode(fields).replace("\x7f", "\\u007f")
    return _URL_SECRET.sub("://***@", line) if "://" in line else line


class Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _text(self._fields(record))

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exc_info"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack_info"] = self.formatStack(record.stack_info)
        for name, value in vars(record).items():
            if name not in _OF_EVERY_RECORD:
                fields.setdefault(name, value)
        for name, value in (*_ids.get().items(), *_where.items()):
            fields.setdefault(name, value)
        return fields


class Lines(logging.Handler):
    """Every record is one `write`, which the kernel keeps in one piece: in a file always, in a pipe up to 4 KiB."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.setFormatter(Formatter())

    def createLock(self) -> None:  # noqa: N802 - logging's name
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.write(self.format(record))
        except Exception:  # noqa: BLE001 - a log that cannot be written stops no work
            self.handleError(record)

    def write(self, line: str) -> None:
        """What the descriptor does not take is lost: nobody waits for a log."""
        rest = memoryview(line.encode("ascii") + b"\n")
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            return


_lines: Lines | None = None


def configure(settings: Settings, host_id: UUID | None = None) -> None:
    """`host_id`: of this host, where that is known already; a process that opens the staging hears it there."""
    global _lines
    if host_id is not None:
        of_host(host_id)
    _lines = Lines(STANDARD_ERROR)
    troubles.keep_in(settings.troubles_path)
    # What no line names is not collected: the documented switches ("Optimization" in the logging HOWTO).
    logging._srcfile = None  # noqa: SLF001 - the documented one not to look for the caller
    logging.logThreads = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [_lines]
    root.setLevel(settings.log.level)
    logging.captureWarnings(True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
