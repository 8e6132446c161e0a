"""The Celery application: queues, limits, schedule. Importing it reads no settings and opens no connection.

Messages are wake-up hints of one id each. Redis may lose, double, delay or reorder them (kombu fetches in two steps, an
abandoned message returns after the visibility time-out), and nothing rests on any of them arriving.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from core import settings
from core.queues import MAINTENANCE
from core.settings import Settings, require_url
from pipeline.installation import await_redis_prefix
from tasks import reading, redis_transport


def configuration(configured: Settings, prefix: str) -> dict[str, Any]:
    """`prefix` is what all our keys in Redis begin with."""
    work = configured.work
    visibility = int(work.time_limit_seconds * 2)
    return {
        "broker_url": require_url(configured.redis_url, "redis_url").replace("unix://", "redis+socket://", 1),
        "broker_transport_options": {
            "global_keyprefix": prefix,
            "visibility_timeout": visibility,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 5,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 15,
            "queue_order_strategy": "priority",
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,  # a full Redis refuses commands: wait as for one that is away
        "broker_pool_acquire_timeout": 5,
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.1},
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_default_queue": MAINTENANCE,
        "task_soft_time_limit": work.soft_time_limit_seconds,
        "task_time_limit": work.time_limit_seconds,
        "task_create_missing_queues": True,
        "worker_prefetch_multiplier": 1,
        "worker_max_tasks_per_child": 1000,
        "worker_soft_shutdown_timeout": 8,
        "worker_enable_soft_shutdown_on_idle": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_proc_alive_timeout": 60,
        "enable_utc": True,
        "beat_schedule": schedule(configured),
    }


def schedule(configured: Settings) -> dict[str, dict[str, Any]]:
    """Return what beat sends and when. tasks/clock.py sees to it that a queue no worker reads does not fill up."""
    every = configured.work.maintenance_seconds
    periods = {
        "maintenance.wake_variants": every,
        "maintenance.collect_garbage": every,
        "maintenance.mark_lost_hosts": every,
        "maintenance.repair_replicas": every,
        "maintenance.run_jobs": min(every, 5),
        "maintenance.give_up_reservations": every * 4,
        "maintenance.evict_copies": every * 4,
        "maintenance.forget_old": every * 40,
        "maintenance.sweep_stores": every * 240,
        "maintenance.write_catalogue": configured.catalogue.seconds,
        "maintenance.compact_catalogue": configured.catalogue.seconds * 8,
    }
    if configured.demotion:
        periods["maintenance.start_policy"] = min(every * 4, configured.work.policy_seconds)
    return {
        name: {"task": name, "schedule": period, "options": {"queue": MAINTENANCE}} for name, period in periods.items()
    }


redis_transport.install()
app = Celery("millrace", include=["tasks.ingest", "tasks.derive", "tasks.maintenance"])


def _defaults() -> dict[str, Any]:
    """Waits for PostgreSQL on a host that never heard of its installation, and there alone."""
    configured = settings.load()
    return configuration(configured, await_redis_prefix(configured))


app.add_defaults(_defaults)
app.steps["consumer"].add(reading.Speaking)
