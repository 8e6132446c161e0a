"""Logs as JSON lines on standard error, with the ids of what is being worked on.

One record is one line: control characters are escaped by JSON itself (DEL too), so no input can forge a line. A
password in a URL never gets out, wherever it was said. Every process calls `configure` once.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from core.settings import Settings

_ids: ContextVar[Mapping[str, Any]] = ContextVar("log_ids", default=MappingProxyType({}))

_URL_SECRET = re.compile(r"://[^\s/@\"']*:[^\s@\"']*@")

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


class Formatter(JsonFormatter):
    def __init__(self) -> None:
        super().__init__(
            "{levelname}{name}{process}{message}",
            style="{",
            rename_fields={"levelname": "level", "name": "logger", "process": "pid"},
            json_ensure_ascii=True,
            timestamp="time",
        )

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        super().add_fields(log_data, record, message_dict)
        for name, value in _ids.get().items():
            log_data.setdefault(name, value)

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record).replace("\x7f", "\\u007f")
        return _URL_SECRET.sub("://***@", line) if "://" in line else line


def configure(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log.level)
    logging.captureWarnings(True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
