"""The queues by name, which processes read each, and which of them no process reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

INTERACTIVE = "variants.interactive"
EAGER = "variants.eager"
MAINTENANCE = "maintenance"
BEAT = "beat"
"""No queue: who has its turn fills the one of maintenance."""

SILENT = timedelta(seconds=60)
"""After its reader's last word a queue counts as read for so long: several words may be late or lost."""

OF_THE_FLEET = frozenset({BEAT, MAINTENANCE, INTERACTIVE, EAGER})
"""One reader of each is enough for all hosts."""

_READERS = {INTERACTIVE: "interactive", EAGER: "variants", MAINTENANCE: "maintenance"}
_INGEST, _SWEEP = "ingest.", "sweep."


def ingest_queue(host_id: object) -> str:
    """Staged bytes are on one host's disk, so their hints go to a queue of that host."""
    return f"{_INGEST}{host_id}"


def sweep_of(host_id: object) -> str:
    """Return what a host's heartbeat is called among the words of readers."""
    return f"{_SWEEP}{host_id}"


@dataclass(frozen=True, slots=True)
class Unread:
    name: str
    """A queue, `beat`, or the sweep of a host."""
    since: datetime | None
    """Its reader's last word. None: there was none."""

    @property
    def summary(self) -> str:
        since = "and none was ever seen" if self.since is None else f"since {self.since.astimezone(UTC):%F %T} UTC"
        return f"{self._what} {since} (start `millrace {self._command}`)"

    @property
    def _what(self) -> str:
        kind, _, rest = self.name.partition(".")
        if self.name == BEAT:
            return "no beat runs"
        if kind == "sweep":
            return f"no sweep runs on host {rest}" if rest else "no sweep runs on any host"
        return f"no worker reads the queue {self.name}"

    @property
    def _command(self) -> str:
        if self.name in _READERS:
            return f"worker {_READERS[self.name]}"
        return "worker ingest" if self.name.startswith(_INGEST) else self.name.partition(".")[0]


def unread(words: Mapping[str, datetime], now: datetime, here: UUID | None) -> list[Unread]:
    """Compare what has to be read with the last word of each reader.

    Of other hosts than this one it takes those for living that have a sweep or an ingest worker: one that has neither
    is gone, or will be found lost with what it holds.
    """
    late = [name for name in sorted(OF_THE_FLEET) if not _speaks(words, name, now)]
    hosts = sorted({*_living(words, now), *([str(here)] if here else [])})
    late += [name for host in hosts for name in (ingest_queue(host), sweep_of(host)) if not _speaks(words, name, now)]
    found = [Unread(name, words.get(name)) for name in late]
    if not hosts:
        found.append(Unread("sweep", max(_of(words, _SWEEP).values(), default=None)))
    return found


def _living(words: Mapping[str, datetime], now: datetime) -> Iterable[str]:
    for prefix in (_INGEST, _SWEEP):
        yield from (name.removeprefix(prefix) for name in _of(words, prefix) if _speaks(words, name, now))


def _of(words: Mapping[str, datetime], prefix: str) -> Mapping[str, datetime]:
    return {name: at for name, at in words.items() if name.startswith(prefix)}


def _speaks(words: Mapping[str, datetime], name: str, now: datetime) -> bool:
    return name in words and now - words[name] <= SILENT
