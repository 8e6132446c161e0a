"""Clients of the fleet, from several addresses: they upload with keys and without, some slowly, ask what became of it,
read, and delete. What they were told is kept, and what is wrong with it."""

from __future__ import annotations

import hashlib
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.faults.at_work import AtWork
from tests.faults.clients import picture
from tests.soak.fleet_of_hosts.network import CLIENTS

LATER = (408, 429, 502, 503, 504)
"""May be asked again: some are HAProxy's, of a host that is just gone."""
PATIENCE_SECONDS = 180.0
SLOW_SECONDS = 6.0


@dataclass(eq=False)
class Sent:
    """An upload, and what came back. `state`: alive, leaving (a client deletes it) or deleted."""

    path: str
    sha256: str
    key: str | None
    upload_id: str = ""
    at: str = ""
    status: int | None = None
    address: str = ""
    """Once it is stored."""
    state: str = "alive"


@dataclass
class Kept:
    """What all of them saw."""

    sent: list[Sent] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def accepted(self) -> list[Sent]:
        with self.lock:
            return [one for one in self.sent if one.status in (201, 202)]

    def count(self, what: str, status: int | None, seconds: float) -> None:
        with self.lock:
            self.answers[f"{what} {'no answer' if status is None else status}"] += 1
            if status is not None and status < 300:
                self.slowest[what] = max(self.slowest.get(what, 0.0), seconds)


class Load(AtWork):
    """A context manager. While `strict`, every request that is not answered as it should be is in `failed`."""

    def __init__(self, url: str, kept: Kept, name: str, seed: int) -> None:
        super().__init__()
        self.kept = kept
        self.failed: list[str] = []
        self.strict = False
        self._url = url
        self._name = name
        self._numbers = itertools.count()
        turns: list[tuple[Callable[[_Client], None], float]] = [
            (self._upload_with_key, 0.4),
            (self._upload_with_key, 0.4),
            (self._upload_once, 0.4),
            (self._upload_slowly, 0.5),
            (self._upload_slowly, 0.5),
            (self._ask, 0.1),
            (self._read, 0.15),
            (self._read_variant, 0.2),
            (self._delete, 1.0),
        ]
        self._threads = [
            threading.Thread(
                target=self._run, args=(turn, every, CLIENTS[n % len(CLIENTS)], f"{seed} {n}"), daemon=True
            )
            for n, (turn, every) in enumerate(turns)
        ]

    def _run(self, turn: Callable[[_Client], None], every: float, address: str, seed: str) -> None:
        with _Client(self, self._url, address, random.Random(seed)) as client:
            while not self._ended.wait(client.chance.uniform(0.5, 1.5) * every):
                try:
                    turn(client)
                except Exception as error:
                    self.kept.wrong.append(f"{type(error).__name__}: {error}")

    def _next(self, folder: str, *, keyed: bool) -> tuple[Sent, bytes]:
        number = next(self._numbers)
        body = picture(number) + number.to_bytes(4) + self._name.encode()
        path = f"/{folder}/{self._name}/{number}"
        sent = Sent(path, hashlib.sha256(body).hexdigest(), f"fleet {self._name} {number}" if keyed else None)
        with self.kept.lock:
            self.kept.sent.append(sent)
        return sent, body

    def _upload_with_key(self, client: _Client) -> None:
        sent, body = self._next("keyed", keyed=True)
        self._until_accepted(client, sent, lambda: body)

    def _upload_once(self, client: _Client) -> None:
        sent, body = self._next("once", keyed=False)
        client.upload(sent, body)

    def _upload_slowly(self, client: _Client) -> None:
        sent, body = self._next("slow", keyed=True)
        self._until_accepted(client, sent, lambda: _drops(body))

    def _until_accepted(self, client: _Client, sent: Sent, body: Callable[[], Any]) -> None:
        ends = time.monotonic() + PATIENCE_SECONDS
        while client.upload(sent, body()) in (None, *LATER):
            if time.monotonic() > ends:
                self.kept.wrong.append(f"{sent.path}: not accepted within {PATIENCE_SECONDS:g} s")
                return
            time.sleep(0.3)

    def _ask(self, client: _Client) -> None:
        """Ask any host what became of one of the youngest uploads or of all; name the host that took it half of the
        time."""
        accepted = [one for one in self.kept.accepted if one.upload_id]  # not what the command sent
        if not accepted:
            return
        sent = client.chance.choice(accepted[-20:] if client.chance.random() < 0.7 else accepted)
        client.ask(sent, told=client.chance.random() < 0.5)

    def _read(self, client: _Client) -> None:
        sent = self._readable(client)
        if sent is None:
            return
        answer = client.get("read", f"{sent.address}/content", sent)
        if answer is not None and _is_other(answer, sent.sha256):
            self.kept.wrong.append(f"{sent.address}: other bytes than were sent")

    def _read_variant(self, client: _Client) -> None:
        sent = self._readable(client)
        if sent is None:
            return
        query = client.chance.choice(["profile=thumb", "profile=thumb", f"w={client.chance.randrange(20, 30)}"])
        answer = client.get("variant", f"{sent.address}/content?{query}", sent)
        if answer is not None and _is_other(answer, answer.headers.get("ETag", "").strip('"')):
            self.kept.wrong.append(f"{sent.address}?{query}: other bytes than were made")

    def _readable(self, client: _Client) -> Sent | None:
        found = [one for one in self.kept.accepted if one.address and one.state == "alive"]
        return client.chance.choice(found[-50:] if client.chance.random() < 0.5 else found) if found else None

    def _delete(self, client: _Client) -> None:
        found = [one for one in self.kept.accepted if one.address and one.state == "alive"]
        if len(found) < 20:
            return
        sent = client.chance.choice(found)
        sent.state = "leaving"
        ends = time.monotonic() + PATIENCE_SECONDS
        while (status := client.request("delete", "DELETE", sent.address)[0]) not in (204, 404):
            if (status is not None and status not in LATER) or time.monotonic() > ends:
                self.kept.wrong.append(f"{sent.address}: a delete was answered with {status}")
                return
            time.sleep(0.3)
        sent.state = "deleted"


class _Client:
    def __init__(self, load: Load, url: str, address: str, chance: random.Random) -> None:
        self.chance = chance
        self._load = load
        self._kept = load.kept
        transport = httpx.HTTPTransport(local_address=address)
        self._client = httpx.Client(base_url=url, transport=transport, timeout=30, trust_env=False)

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def request(self, what: str, method: str, address: str, **more: Any) -> tuple[int | None, httpx.Response | None]:
        strict, began, why = self._load.strict, time.monotonic(), ""
        answer: httpx.Response | None = None
        try:
            answer = self._client.request(method, address, **more)
        except httpx.TransportError as error:
            why = repr(error)
        status = None if answer is None else answer.status_code
        self._kept.count(what, status, time.monotonic() - began)
        if answer is not None:
            why = answer.text[:300] if answer.status_code >= 400 else ""
            if answer.status_code >= 500 and answer.status_code not in LATER:
                self._kept.wrong.append(f"{method} {address}: {status} {why}")
        if strict and (status is None or status >= 500) and "ask-staging-host" not in why:
            self._load.failed.append(f"{method} {address}: {status} {why}")
        return status, answer

    def upload(self, sent: Sent, body: Any) -> int | None:
        headers = {"Idempotency-Key": sent.key} if sent.key else {}
        what = f"upload {sent.path.split('/')[1]}"
        status, answer = self.request(what, "POST", f"/assets{sent.path}", content=body, headers=headers)
        if answer is not None and status in (201, 202):
            said = answer.json()
            sent.upload_id = said["id"]
            sent.at = said["links"]["self"].partition("at=")[2]
        elif status not in (None, *LATER):
            self._kept.wrong.append(f"{sent.path}: an upload was answered with {status}")
        sent.status = status  # last: others take it from now on
        return status

    def ask(self, sent: Sent, *, told: bool) -> dict[str, Any] | None:
        query = f"?at={sent.at}" if told else ""
        what = "ask at=" if told else "ask"
        status, answer = self.request(what, "GET", f"/ingests/{sent.upload_id}{query}")
        if answer is None or status in LATER:
            return None
        if status != 200:
            if told or status != 404:  # without its host an upload is not known before it was announced
                self._kept.wrong.append(f"/ingests/{sent.upload_id}{query}: {status} {answer.text[:300]}")
            return None
        said: dict[str, Any] = answer.json()
        if said["state"] == "failed":
            self._kept.count("told host-lost", status, 0)
            if said["failure"]["class"] != "host-lost":
                self._kept.wrong.append(f"{sent.path}: failed: {said['failure']}")
        sent.address = sent.address or said["links"]["asset"] or ""
        return said

    def get(self, what: str, address: str, sent: Sent) -> httpx.Response | None:
        status, answer = self.request(what, "GET", address)
        if answer is not None and status not in (200, 202, *LATER) and sent.state == "alive":
            self._kept.wrong.append(f"{address}: {status} {answer.text[:300]}")
        return answer


def _is_other(answer: httpx.Response, sha256: str) -> bool:
    return answer.status_code == 200 and hashlib.sha256(answer.content).hexdigest() != sha256


def _drops(body: bytes) -> Iterator[bytes]:
    step = len(body) // 12 + 1
    for start in range(0, len(body), step):
        yield body[start : start + step]
        time.sleep(SLOW_SECONDS / 12)
