"""Examines everything that this process depends on, each dependency on its own, and says what suits.

A dependency that is away, refuses or hangs is a finding and keeps nobody waiting: dependencies are asked side by side,
and each question has its own limit of time. What hangs is left to its thread, which dies with the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from coordination.probes import RedisProbe
from core import queues, troubles
from core.errors import Archived, Forbidden, MillraceError, Misconfigured, NoStore, StoreFull
from core.findings import Check, Finding, Grade, note, ok, problem
from core.settings import Settings
from database.transactions import Database
from metadata.probes import PostgresProbe
from metadata.readers import Readers
from metadata.rules import PlacementRules
from pipeline import connections
from pipeline.doctor.advice import advise
from pipeline.installation import redis_prefix
from pipeline.rules.in_force import difference, rules_of
from pipeline.rules.profiles import Profiles
from pipeline.stores.whose import whose
from storage import registry
from storage.interface import ObjectStore
from storage.probes import StoreProbe, for_probing
from storage.staging import host
from storage.staging.probes import StagingProbe

DATABASE_SECONDS = 3.0
OPEN_SECONDS = 8.0
CLEAN_UP_SECONDS = 15.0
CLEAN_UP_OF_THE_SILENT_SECONDS = 3.0
"""What did not answer just now will hardly do so."""

_NOT_IMPLEMENTED = 'the service lacks something that is asked of it: set its provider, or conditional_writes = "off"'

T = TypeVar("T")

Heard = Callable[[str, Finding], None]
"""Told of each finding as it comes, from any thread."""


@dataclass(frozen=True)
class Patient:
    name: str
    checks: Callable[[], Sequence[Check]]
    """What is asked, in order. May raise a MillraceError."""
    last: Check | None = None
    """Asked whatever happened before."""
    close: Callable[[], None] = lambda: None
    """Called at the end, unless a question hangs."""


@dataclass
class Examination:
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    advice: list[str] = field(default_factory=list)
    hanging: bool = False
    """Some question never came back: its thread is still there."""

    @property
    def healthy(self) -> bool:
        return not any(one.grade is Grade.PROBLEM for found in self.findings.values() for one in found)


def examine(settings: Settings, heard: Heard = lambda _name, _finding: None) -> Examination:
    """When it is interrupted, it still removes its probe objects."""
    done, stop = Examination(), threading.Event()
    patients = _patients(settings)
    done.findings = {patient.name: [] for patient in patients}

    def see(patient: Patient) -> None:
        silent = False
        for finding, hangs in _ask_all(patient, stop):
            silent = silent or hangs
            done.findings[patient.name].append(finding)
            heard(patient.name, finding)
        if silent:
            done.hanging = True
        else:
            patient.close()

    threads = [threading.Thread(target=see, args=(patient,), daemon=True) for patient in patients]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        stop.set()
        for thread in threads:
            thread.join(CLEAN_UP_SECONDS)
        raise
    done.advice = advise(settings, done.findings)
    return done


def _patients(settings: Settings) -> list[Patient]:
    return [
        Patient("settings", lambda: [Check("profiles", lambda: _profiles(settings))]),
        Patient("staging", lambda: StagingProbe(settings).checks()),
        Patient("background", lambda: [Check("loops", lambda: _background(settings))]),
        _postgres(settings),
        _redis(settings),
        *(_store(settings, name) for name in settings.store_options),
    ]


def _background(settings: Settings) -> Finding:
    """Return what the processes of this host said."""
    found = troubles.known(settings.troubles_path)
    if not found:
        return ok("loops", "nothing fails again and again on this host")
    said = "; ".join(f"{one.summary}: {one.detail}" for one in found)
    return problem("loops", said, "the logs say it with its stack; it is tried again all the time")


def _profiles(settings: Settings) -> Finding:
    Profiles.parse(settings)
    return ok("profiles", "the profiles and path rules fit together")


def _postgres(settings: Settings) -> Patient:
    if settings.database_url is None:
        return Patient("postgres", lambda: [_not_set("database_url")])
    database = Database(settings.database_url, pool_size=1, deadline_seconds=DATABASE_SECONDS)
    durable = settings.staging.sync != "none" and not settings.staging.ephemeral
    probe = PostgresProbe(database, connections=connections.of_host(settings), durable=durable)
    checks = partial(_of_postgres, probe, database, settings)
    return Patient("postgres", checks, close=database.close)


def _of_postgres(probe: PostgresProbe, database: Database, settings: Settings) -> Sequence[Check]:
    rules, readers = PlacementRules(database), Readers(database)
    return [
        *probe.checks(),
        Check("rules", lambda: placement_rules(rules, settings)),
        Check("queues", lambda: _queues(readers, settings)),
    ]


def _queues(readers: Readers, settings: Settings) -> Finding:
    found = readers.unread(host.known(settings))
    if not found:
        return ok("queues", "each is read")
    said, advice = "; ".join(one.summary for one in found), "start what is named, once at least in the fleet"
    if all(one.since is None for one in found) and {one.name for one in found} >= queues.OF_THE_FLEET:
        return note("queues", f"nothing of this installation runs yet: {said}", advice)
    return problem("queues", said, advice)


def placement_rules(rules: PlacementRules, settings: Settings) -> Finding:
    try:
        own = rules_of(settings, registry.options_of(settings))
    except Misconfigured:  # said of the store itself
        return note("rules", "they are compared when the settings of every store can be read")
    other = difference(rules, own)
    if other is None:
        return ok("rules", "this host's placement rules are those in force")
    return problem(
        "rules",
        other,
        "run `millrace storage apply-rules` where the right ones are (with --dry-run first), and give all hosts these",
    )


def _redis(settings: Settings) -> Patient:
    if settings.redis_url is None:
        return Patient("redis", lambda: [_not_set("redis_url")])
    probe = RedisProbe(settings.redis_url, key_prefix=redis_prefix(settings) or settings.key_prefix)
    return Patient("redis", probe.checks, close=probe.close)


def _not_set(name: str) -> Check:
    said = f"set MILLRACE_{name.upper()}, or use the MILLRACE_HOME of a running `millrace up`"
    return Check("settings", lambda: problem("settings", f"{name} is not set", said))


def _store(settings: Settings, name: str) -> Patient:
    """Opened by itself, so that a fault of one store leaves the others to be looked at."""
    only = _only(settings, name, settings.store_options[name])
    opened: list[tuple[ObjectStore, StoreProbe]] = []
    reading = _only_read(name, settings.store_options[name])

    def checks() -> Sequence[Check]:
        registry.describe(only)  # as it is configured, for what is wrong with that
        probed = _only(settings, name, for_probing(settings.store_options[name]))
        store = registry.open_stores(probed)[name]
        opened.append((store, StoreProbe(store, registry.describe(probed)[name])))
        probe = opened[0][1]
        marker = Check("marker", lambda: whose(settings, store, reading=reading is not None), needed=True)
        return [marker, *(probe.checks_of_reading(*reading) if reading else probe.checks())]

    def clean_up() -> Finding:
        return opened[0][1].clean_up()  # there is one: `last` is asked only where opening went well

    def close() -> None:
        for store, _ in opened:
            store.close()

    last = None if reading else Check("delete", clean_up, seconds=CLEAN_UP_SECONDS)
    return Patient(f"store:{name}", checks, last, close)


def _only(settings: Settings, name: str, options: Mapping[str, Any]) -> Settings:
    return settings.model_copy(update={"stores": {name: options}, "default_store": name})


def _only_read(name: str, options: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """Why nothing may be written to this store here, and what to do instead; None: it may."""
    kind = str(options.get("kind"))
    if kind in registry.BACKENDS and registry.backend_of(kind).options.one_owner:
        advice = f"`millrace storage bench --store {name}` measures it while no worker runs"
        return "one process owns this store and alone writes to it", advice
    state = options.get("state", "active")
    return None if state == "active" else (f"its state is {state}", None)


def _ask_all(patient: Patient, stop: threading.Event) -> Iterator[tuple[Finding, bool]]:
    """Each finding, and whether its question still hangs. After one that everything rests on, nothing more is asked."""
    opened = _Question(patient.checks)
    if not opened.answered(OPEN_SECONDS):
        yield problem("open", _silence(OPEN_SECONDS)), True
        return
    if opened.failure is not None:
        yield _failed("open", opened.failure), False
        return
    assert opened.answer is not None
    hangs = False
    for check in opened.answer:
        finding, hangs = _ask(check, check.seconds)
        yield finding, hangs
        if hangs or stop.is_set() or (check.needed and finding.grade is Grade.PROBLEM):
            break
    if patient.last is not None:
        yield _ask(patient.last, CLEAN_UP_OF_THE_SILENT_SECONDS if hangs else patient.last.seconds)


def _ask(check: Check, seconds: float) -> tuple[Finding, bool]:
    question = _Question(check.run)
    if not question.answered(seconds):
        return problem(check.name, _silence(seconds), "see whether it hangs, or the network drops packets"), True
    if question.failure is not None:
        return _failed(check.name, question.failure), False
    assert question.answer is not None
    return question.answer, False


def _silence(seconds: float) -> str:
    return f"no answer within {seconds:g} s"


def _failed(check: str, failure: Exception) -> Finding:
    if isinstance(failure, Archived):
        return note(check, "what is written here goes into an archive, and is read only after it was restored")
    if isinstance(failure, Misconfigured):
        return problem(check, failure.detail, "correct the settings; `millrace config` prints what is in force")
    if isinstance(failure, StoreFull):
        return problem(check, failure.detail, "make room: nothing is lost, uploads wait in staging meanwhile")
    if isinstance(failure, NoStore):
        return problem(check, failure.detail, "nothing is lost, uploads wait in staging meanwhile")
    if isinstance(failure, Forbidden):
        return problem(check, failure.detail, "check the credentials, and their rights on this bucket or directory")
    if isinstance(failure, MillraceError):
        advice = _NOT_IMPLEMENTED if "NotImplemented" in failure.detail else None
        return problem(check, failure.detail, advice)
    return problem(check, f"{type(failure).__name__}: {failure}", "this is a bug: please report it")


class _Question(Generic[T]):
    """A call in a thread of its own, which may never come back."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.answer: T | None = None
        self.failure: Exception | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def answered(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.answer = self._call()
        except Exception as error:  # noqa: BLE001 - whatever one dependency does, the others are still examined
            self.failure = error
