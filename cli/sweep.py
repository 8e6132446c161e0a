"""`millrace sweep`: this host's sweep, at start and then every `work.sweep_seconds`."""

from __future__ import annotations

import logging
import signal
import time

import click

from core import logs, settings
from pipeline import connections
from pipeline.services import build
from pipeline.uploads.sweep import Sweep
from storage.staging.staging import Staging
from supervise.shutdown_signal import Stop
from tasks.celery_app import app
from tasks.hints import CeleryHints, IngestQueue

log = logging.getLogger(__name__)

CLOSE_SECONDS = 1.0


@click.command()
@click.option("--once", is_flag=True, help="One round, then end.")
def sweep(once: bool) -> None:
    """Feed this host's staged entries to the workers, and keep its staging tidy."""
    configured = settings.load()
    logs.configure(configured)
    services = build(
        configured, CeleryHints(app, configured, Staging.open(configured).host_id), pool_size=connections.SWEEP
    )
    queue = IngestQueue(app, configured, services.staging.host_id)
    ended = Stop.on((signal.SIGTERM, signal.SIGINT))
    rounds = Sweep(services, queue)
    log.info("the sweep starts")
    try:
        if once:
            rounds.announce()
            rounds.run()
            return
        rounds.heartbeat.start()
        while not ended.is_set():
            started = time.monotonic()
            rounds.run()
            ended.wait(max(0.0, configured.work.sweep_seconds - (time.monotonic() - started)))
    finally:
        rounds.heartbeat.close(CLOSE_SECONDS)
        services.close()
