"""How gunicorn serves Millrace: `gunicorn --config python:app.gunicorn_conf app.wsgi:application`.

Workers load the application after the fork, so no connection and no library thread is shared. `--bind` on the command
line wins over `MILLRACE_HTTP_URL`, which wins over `HOST` and `PORT`.
"""

from __future__ import annotations

import os
import sys
from typing import Any
from urllib.parse import urlsplit

from core import logs
from core.errors import Misconfigured
from core.parent_death import die_with_parent
from core.settings import Settings, load


def _settings() -> Settings:
    try:
        return load()
    except Misconfigured as error:
        sys.exit(f"millrace: {error.detail}")


def _address(settings: Settings) -> str:
    if settings.http_url is not None:
        url = urlsplit(settings.http_url)
        if url.hostname is not None:
            host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
            return f"{host}:{url.port or 80}"
    return f"{os.environ.get('HOST') or '127.0.0.1'}:{os.environ.get('PORT') or '8080'}"


_loaded = _settings()

bind = _address(_loaded)
workers = _loaded.web.workers
threads = _loaded.web.threads
worker_class = "app.server.Worker"
logger_class = "app.server.Logger"
worker_connections = _loaded.web.threads * 8
backlog = 1024
limit_request_line = 8190  # the most that gunicorn counts: paths and labels are long when percent-encoded
keepalive = 15
graceful_timeout = 8
timeout = 60  # of a worker's main loop, not of a request
preload_app = False
accesslog = None  # app/access.py writes it
control_socket_disable = True


def post_fork(server: Any, worker: Any) -> None:
    """A worker never outlives its master, also where it is busy and does not look."""
    die_with_parent(worker.ppid)


logs.configure(_loaded)
