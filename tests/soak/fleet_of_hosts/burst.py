"""120 readers at once, of a fleet whose PostgreSQL has 60 connections."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from tests.faults.clients import picture
from tests.soak.fleet_of_hosts.network import CLIENTS

if TYPE_CHECKING:
    from tests.soak.fleet_of_hosts.course import Course

READERS = 120
SECONDS = 15
SOON_SECONDS = 30
"""So long ingest may take to go on; the issue's own bound, 5 s, is that of a quiet machine."""
ALLOWED = {200, 202, 404, 429, 502, 503, 504}


def run(course: Course) -> list[str]:
    addresses = [one.address for one in course.kept.accepted if one.address and one.state == "alive"]
    answers: Counter[int | None] = Counter()
    ends = time.monotonic() + SECONDS
    threads = [
        threading.Thread(target=_read, args=(course.fleet.url, number, addresses, answers, ends), daemon=True)
        for number in range(READERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    began = time.monotonic()
    stored = _store(course.fleet.url, f"/burst/{random.getrandbits(60):x}")
    took = time.monotonic() - began
    course.figures["burst: answers of 120 readers"] = f"{sum(answers.values())}"
    course.figures |= {
        f"burst: {status or 'no answer'}": f"{count}" for status, count in sorted(answers.items(), key=str)
    }
    course.figures["burst: ingest goes on after"] = f"{took:.1f} s"
    strange = [f"burst: {count} answers of {status}" for status, count in answers.items() if status not in ALLOWED]
    return strange if stored else [*strange, f"burst: nothing is stored within {SOON_SECONDS} s after it"]


def _read(url: str, number: int, addresses: list[str], answers: Counter[int | None], ends: float) -> None:
    chance, host = random.Random(number), urlsplit(url).hostname or ""
    while time.monotonic() < ends:
        connection = http.client.HTTPConnection(host, timeout=30, source_address=(CLIENTS[number % len(CLIENTS)], 0))
        try:
            while time.monotonic() < ends:
                address = f"{chance.choice(addresses)}/content" if chance.random() < 0.5 else "/assets/none"
                connection.request("GET", address)
                answer = connection.getresponse()
                answer.read()
                answers[answer.status] += 1
        except (OSError, http.client.HTTPException):
            answers[None] += 1
        finally:
            connection.close()


def _store(url: str, path: str) -> bool:
    body = picture(0) + path.encode()
    headers = {"Prefer": f"wait={SOON_SECONDS}"}
    answer = httpx.post(f"{url}/assets{path}", content=body, headers=headers, timeout=60, trust_env=False)
    return answer.status_code == 201
