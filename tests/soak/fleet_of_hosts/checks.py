"""What has to hold once the fleet is at rest: what clients were told against rows, bytes, disks and the store."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import psycopg2

from tests.soak.fleet_of_hosts.load import Sent
from tests.soak.fleet_of_hosts.services import WIDE

if TYPE_CHECKING:
    from tests.soak.fleet_of_hosts.course import Course

READERS = 4


def unfinished(course: Course) -> list[str]:
    """List what is still under way."""
    fleet = course.fleet
    staged = [f"{host.name} still holds {names}" for host in fleet.ingest if (names := host.staged())]
    if staged:
        return staged
    try:
        open_ends = {
            "replicas not healthy": "SELECT count(*) FROM replica WHERE state <> 'healthy'",
            "variants pending": "SELECT count(DISTINCT v.id) FROM variant v JOIN asset_variant a ON a.variant_id = v.id"
            " WHERE v.state = 'pending'",
            "objects to delete": "SELECT count(*) FROM garbage",
        }
        counts = {what: fleet.sql(query)[0][0] for what, query in open_ends.items()}
    except psycopg2.OperationalError as error:
        return [str(error)]
    return [f"{count} {what}" for what, count in counts.items() if count]


def violations(course: Course) -> list[str]:
    return [*_rows(course), *_bytes(course), *_failures(course), *_commands(course)]


def _rows(course: Course) -> Iterator[str]:
    """Check that every accepted upload is recorded once with its bytes, and nothing else is."""
    there: dict[str, list[str]] = defaultdict(list)
    query = "SELECT path_text, encode(blob, 'hex') FROM asset UNION ALL SELECT path_text, 'deleted' FROM tombstone"
    for path, sha256 in course.fleet.sql(query):
        there[path].append(sha256)
    lost = doubled = 0
    for sent in course.kept.accepted:
        found = there.get(sent.path, [])
        if not found:
            lost += 1
            yield f"{sent.path}: accepted with {sent.status} as {sent.upload_id} at {sent.at}, and lost"
        elif len(found) > 1:
            doubled += 1
            yield f"{sent.path}: is there {len(found)} times"
        elif found[0] != (sent.sha256 if sent.state != "deleted" else "deleted"):
            yield f"{sent.path}: is {found[0]}, and was {sent.sha256}, {sent.state}"
    twice = [path for path, found in there.items() if len(found) > 1 and path.startswith(("/keyed", "/slow", "/sent"))]
    yield from (f"{path}: its key has several assets" for path in twice)
    course.figures["lost"], course.figures["doubled"] = f"{lost}", f"{doubled + len(twice)}"


def _bytes(course: Course) -> list[str]:
    """Check that every upload reads back through the door, with its variant, or was deleted and is gone."""
    with (
        httpx.Client(base_url=course.fleet.url, timeout=60, trust_env=False) as client,
        ThreadPoolExecutor(READERS) as pool,
    ):
        found = list(pool.map(lambda sent: _read_back(client, sent), course.kept.accepted))
    course.figures["read back byte for byte"] = f"{sum(one is None for one in found)}"
    return [one for one in found if one is not None]


def _read_back(client: httpx.Client, sent: Sent) -> str | None:
    address = f"/assets{sent.path}/-/content"
    answer = client.get(address)
    if sent.state == "deleted":
        return None if answer.status_code == 404 else f"{address}: deleted, and answers {answer.status_code}"
    if answer.status_code != 200 or hashlib.sha256(answer.content).hexdigest() != sent.sha256:
        return f"{address}: answers {answer.status_code}, and not with its bytes"
    variant = client.get(f"{address}?profile=thumb")
    return None if variant.status_code == 200 else f"{address}?profile=thumb: answers {variant.status_code}"


def _failures(course: Course) -> list[str]:
    return [f"failed: {row}" for row in course.fleet.sql("SELECT subject, path_text, kind, detail FROM failure")]


def _commands(course: Course) -> Iterator[str]:
    """Run the product's own commands on a host, and yield what they find wrong; the first has to say that PostgreSQL
    has too few connections for the fleet."""
    host = course.fleet.ingest[0]
    narrow = json.loads(host.run("millrace", "doctor", "--json").stdout)["findings"]
    problems = [one for found in narrow.values() for one in found if one["grade"] == "problem"]
    if [one["check"] for one in problems] != ["connections"]:
        yield f"doctor, with too few connections: {problems}"
    course.fleet.give_connections(WIDE)
    examined = host.run("millrace", "doctor")
    if examined.returncode != 0 or "Nothing is wrong." not in examined.stdout:
        yield f"doctor: {examined.stdout}{examined.stderr}"
    verified = host.run("millrace", "storage", "verify", "--json")
    if verified.returncode != 0:
        yield f"storage verify: {verified.stdout}{verified.stderr}"
    surveyed = host.run("millrace", "storage", "gc", "--dry-run", "--grace-hours", "0", "--json")
    said: dict[str, Any] = json.loads(surveyed.stdout) if surveyed.returncode == 0 else {}
    if said.get("orphans") != 0 or said.get("foreign") != 0:
        yield f"storage gc --dry-run: {surveyed.stdout}{surveyed.stderr}"
    for one in course.fleet.ingest:
        yield from (f"{one.name}: {name} is left in staging" for name in one.staged())
