"""How gunicorn serves Millrace: `gunicorn --config python:app.gunicorn_conf app.wsgi:application`.

Workers load the application after the fork, so no connection and no library thread is shared. `--bind` on the command
line wins over `MILLRACE_HTTP_URL`, which wins over `HOST` and `PORT`.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from math import ceil
from typing import Any
from urllib.parse import urlsplit

from core import logs
from core.addresses import is_loopback
from core.errors import Misconfigured
from core.loading import uncollected
from core.parent_death import die_with_parent
from core.sections import ANONYMOUS
from core.settings import Settings, load
from storage import registry
from storage.staging import host


def _settings() -> Settings:
    try:
        loaded = load()
        registry.options_of(loaded)  # and what they name is loaded before the fork
        return loaded
    except Misconfigured as error:
        sys.exit(f"millrace: {error.detail}")


def _load_what_workers_share() -> None:
    with uncollected():
        for name in ("app.server", "app.web", "tasks.celery_app", "tasks.hints"):
            import_module(name)
    gc.freeze()  # a collection in a worker would copy the pages that it shares


def _address(settings: Settings) -> str:
    if settings.http_url is not None:
        url = urlsplit(settings.http_url)
        if url.hostname is not None:
            host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
            return f"{host}:{url.port or 80}"
    return f"{os.environ.get('HOST') or '127.0.0.1'}:{os.environ.get('PORT') or '8080'}"


_loaded = _settings()
_load_what_workers_share()

bind = _address(_loaded)
workers = _loaded.web.workers
threads = _loaded.web.threads
worker_class = "app.server.Worker"
logger_class = "app.server_log.Logger"
worker_connections = _loaded.web.threads * 8
backlog = 1024
limit_request_line = 8190  # the most that gunicorn counts: paths and labels are long when percent-encoded
graceful_timeout = ceil(_loaded.web.stop_delay_seconds + _loaded.web.graceful_seconds) + 2  # the worker ends before
timeout = 60  # of a worker's main loop, not of a request
preload_app = False
accesslog = None  # app/access.py writes it
control_socket_disable = True


def on_starting(server: Any) -> None:
    """Check what the settings and the command line say, before anything is bound."""
    _refuse_strangers(server.cfg.address)


def when_ready(server: Any) -> None:
    """Check what is bound, also where another process bound it and handed it down, before a request is served."""
    _refuse_strangers([listener.getsockname() for listener in server.LISTENERS])


def _refuse_strangers(addresses: Iterable[Any]) -> None:
    """End where other machines reach one of the addresses and `web.allow_anonymous` does not say so: without keys every
    client that reaches the port may delete everything. One that is no tuple is a Unix socket, or not bound yet."""
    if _loaded.web.allow_anonymous:
        return
    for address in addresses:
        if isinstance(address, tuple) and not is_loopback(str(address[0])):
            sys.exit(f"millrace: {ANONYMOUS.format(address[0] or '*')}")


def post_fork(server: Any, worker: Any) -> None:
    """A worker never outlives its master, also where it is busy and does not look."""
    die_with_parent(worker.ppid)


logs.configure(_loaded, host.known(_loaded))
