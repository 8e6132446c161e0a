"""What gunicorn loads in each worker, after the fork. Connects to nothing: an upload needs no other service."""

from __future__ import annotations

from app.web import create
from core import settings
from pipeline.services import Services, build
from storage.staging.staging import Staging
from tasks.celery_app import app as celery
from tasks.hints import CeleryHints


def _services() -> Services:
    configured = settings.load()
    staging = Staging.open(configured)
    return build(
        configured,
        CeleryHints(celery, configured, staging.host_id),
        pool_size=configured.web.pool,
        database_seconds=configured.web.database_seconds,
    )


application = create(_services())
