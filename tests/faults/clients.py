"""Clients that cope with faults: they upload with keys, ask again when no answer comes, read, and delete."""

from __future__ import annotations

import itertools
import threading

import httpx

from tests.faults.at_work import AtWork
from tests.faults.history import Told
from tests.faults.stack import Stack
from tests.pictures import encoded, photo

READ_EVERY, DELETE_EVERY, SAME_EVERY = 4, 9, 6
"""Which uploads are read or deleted at once, and which carry bytes that were sent before."""
PAUSE_SECONDS = 0.2
"""Of each client: something is always under way, and most of the machine is left to the processes that start again."""


def picture(number: int) -> bytes:
    """Another picture for every number below 100 000."""
    return encoded(photo(64 + number % 250, 48 + number // 250), "JPEG")


class CarefulClients(AtWork):
    """A context manager: so many clients at work until it is left, and what they found wrong is raised then."""

    def __init__(self, stack: Stack, name: str, *, clients: int = 3, patience: float = 60) -> None:
        super().__init__()
        self.accepted: list[Told] = []
        self.wrong: list[str] = []
        self._stack = stack
        self._name = name
        self._patience = patience
        self._numbers = itertools.count()
        self._threads = [threading.Thread(target=self._run, name=f"client-{n}") for n in range(clients)]

    def _judge(self) -> None:
        assert not self.wrong, "\n".join(self.wrong[:10])

    def flows(self, more: int = 5, seconds: float = 30) -> None:
        """Wait until so many more uploads were accepted from now on."""
        wanted = len(self.accepted) + more
        self._stack.until(lambda: len(self.accepted) >= wanted or self.wrong, seconds, f"{more} more are accepted")

    def _run(self) -> None:
        try:
            while not self._ended.wait(PAUSE_SECONDS):
                self._turn(next(self._numbers))
        except Exception as error:
            self.wrong.append(f"{type(error).__name__}: {error}")

    def _turn(self, number: int) -> None:
        path = f"/{self._name}/{number % 5}"
        body = picture(number // 2 if number % SAME_EVERY == 0 else number)
        told = self._stack.upload_until_accepted(path, body, key=f"{self._name} {number}", seconds=self._patience)
        self.accepted.append(told)
        if number % READ_EVERY == 0:
            self._read(self.accepted[number // 2 % len(self.accepted)])
        if number % DELETE_EVERY == 0:
            self._stack.delete(told, seconds=self._patience)

    def _read(self, told: Told) -> None:
        """No answer, or one that tells to come again, is allowed; other bytes or a 500 are not."""
        asset = self._stack.ingest(told.upload_id).get("links", {}).get("asset")
        if not asset:
            return
        try:
            answer = httpx.get(f"{self._stack.url}{asset}/content", timeout=20)
        except httpx.TransportError:
            return
        if answer.status_code not in (200, 404, 503):
            self.wrong.append(f"{asset}: {answer.status_code} {answer.text[:200]}")
