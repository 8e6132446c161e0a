"""Why a process ended, in one line for the terminal, out of what it wrote: our JSON, tracebacks, a server's own log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

_READ_BYTES = 256 << 10
_COMPLAINT = re.compile(r"\b(fatal|panic|\w*error|\w*exception|cannot|could not|failed|misconfigured|millrace:)", re.I)


def complaint(log: Path, since: int) -> str:
    """Return the most telling line after this position; or nothing."""
    return telling(_lines(log, since))


def telling(lines: Iterable[str]) -> str:
    """Return the most telling line: an exception's, else the last that complains, else the last; or nothing."""
    raised, others = "", ""
    said = ""
    for line in lines:
        exception, text = _read(line)
        raised = exception or raised
        said = text or said
        if text and _COMPLAINT.search(text):
            others = text
    return raised or others or said


def _read(line: str) -> tuple[str, str]:
    """The exception that a JSON record carries, and what the line says."""
    try:
        record = json.loads(line)
        trace = str(record.get("exc_info") or "").strip().splitlines()
        level, text = str(record.get("level", "")), str(record.get("message", ""))
    except (ValueError, AttributeError):
        return "", line
    return (trace[-1].strip() if trace else ""), (text if level in ("ERROR", "CRITICAL") or not level else "")


def _lines(log: Path, since: int) -> list[str]:
    try:
        with log.open("rb") as file:
            size = log.stat().st_size
            file.seek(max(size - _READ_BYTES, since if since <= size else 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]
