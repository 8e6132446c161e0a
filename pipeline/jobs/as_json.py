"""Jobs as JSON, the same over HTTP and from the command line: names in camelCase, times in ISO 8601."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.model import Job


def told(job: Job) -> dict[str, Any]:
    times = {"created": job.created_at, "started": job.started_at, "finished": job.finished_at}
    return {
        "id": str(job.id),
        "kind": job.kind,
        "arguments": to_camel(job.arguments),
        "state": job.state.value,
        "wish": job.wish,
        "progress": to_camel(job.progress),
        "error": job.error,
        "times": {name: None if at is None else at.isoformat() for name, at in times.items()},
    }


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """As a kind of job takes them."""
    return {re.sub(r"[A-Z]", lambda sign: f"_{sign[0].lower()}", name): value for name, value in given.items()}


def to_camel(named: Mapping[str, Any]) -> dict[str, Any]:
    return {re.sub(r"_(\w)", lambda sign: sign[1].upper(), name): value for name, value in named.items()}
