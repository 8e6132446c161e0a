"""How long the S3 store waits, how often it asks again, and when it stops asking."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread

import pytest
from botocore.retries.standard import ExponentialBackoff

from core.errors import Forbidden, NotFound, StoreUnavailable
from storage.s3 import deadline, service
from storage.s3.errors import Outage
from storage.s3.store import S3Store
from tests.contracts.object_store import MIB, fill, keys, read, sha256
from tests.storage.s3_script import Answer, Script, content, open_store, script, vouching
from tests.storage.test_s3 import bucket, s3, shared

__all__ = ["bucket", "s3", "script", "shared"]

ABC = b"abc"
LONG = 30.0
"""Far beyond what any of these tests takes, far below what a wrong one would."""


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where everything is taken and nothing answered."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        call()
    return time.monotonic() - began


@pytest.mark.parametrize("refusal", [Answer(500), Answer(503, "SlowDown"), Answer(429), Answer(400, "BadDigest")])
def test_a_request_is_sent_so_often(script: Script, refusal: Answer) -> None:
    store = script.open_store(max_attempts=2)
    script.answers += [refusal, Answer(200, headers=vouching(ABC))]
    fill(store, "a", ABC)
    script.answers += [refusal, refusal]
    with pytest.raises(StoreUnavailable):
        read(store, "a")
    store.close()


def test_a_throttled_request_waits_longer_than_another(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the jitter at its largest."""
    monkeypatch.setattr(ExponentialBackoff.__init__, "__defaults__", (20, lambda: 1.0, None, None))
    waited: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time.sleep", waited.append)
    store = script.open_store(max_attempts=3)
    for refusal in (Answer(503, "SlowDown"), Answer(500, "InternalError")):
        script.answers += [refusal, refusal, content(ABC)]
        read(store, "a")
    assert waited[:2] == [1.0, 2.0]
    assert max(waited[2:]) < 1.0
    store.close()


def test_an_operation_ends_in_time_whatever_an_attempt_may_take(silent: int) -> None:
    store = open_store(silent, attempt_timeout=60, operation_timeout=0.5, max_attempts=10)
    assert seconds(lambda: store.head("a")) < LONG
    assert seconds(lambda: fill(store, "a", ABC)) < LONG
    store.close()


def test_no_attempt_begins_after_the_end(script: Script) -> None:
    script.always = lambda _: Answer(500)
    store = script.open_store(operation_timeout=0.6, max_attempts=20)
    assert seconds(lambda: store.head("a")) < LONG
    assert len(script.asked) < 15
    store.close()


def test_a_body_that_is_taken_too_slowly_ends_with_the_operation(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BYTES_PER_SECOND", 10**9)
    script.seconds_per_mebibyte = 20
    script.always = lambda _: Answer(200)
    store = script.open_store(operation_timeout=0.5)
    assert seconds(lambda: fill(store, "a", bytes(8 * MIB))) < LONG
    store.close()


@pytest.mark.parametrize("options", [{"multipart_threshold": 7 * MIB}, {}], ids=["in one", "in parts"])
def test_a_body_that_comes_to_us_slowly_costs_no_time_of_the_operation(
    s3: S3Store, monkeypatch: pytest.MonkeyPatch, options: dict[str, int]
) -> None:
    """Send a body that comes slowly, as a throttled one does by our own will: it is not the service that is slow."""
    monkeypatch.setattr(service, "BYTES_PER_SECOND", 10**9)
    clock = Clock(monkeypatch)
    store = S3Store("main", s3._options.model_copy(update={"operation_timeout": 20, **options}))
    body = SlowBody(clock, seconds=7200)
    store.put("slow", body, size=body.size, sha256=sha256(bytes(body.size)), media_type="image/png")
    assert store.head("slow").size == body.size
    store.close()


class Clock:
    """The clock of deadlines, put forward by those who say how long they took."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        monkeypatch.setattr(deadline, "time", self)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


class SlowBody(io.BytesIO):
    size = 6 * MIB

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__(bytes(self.size))
        self._clock, self._seconds = clock, seconds

    def read(self, size: int | None = -1, /) -> bytes:
        self._clock.ahead += self._seconds
        return super().read(size)


def test_the_time_for_an_operation_grows_with_its_body() -> None:
    store = open_store(1, operation_timeout=10)
    assert 9 < store._service.deadline().left <= 10
    assert 2009 < store._service.deadline(2 * 10**9).left <= 2010
    store.close()


def test_an_attempt_ends_when_no_byte_moves(silent: int) -> None:
    store = open_store(silent, attempt_timeout=0.3, operation_timeout=600)
    assert seconds(lambda: store.head("a")) < LONG
    store.close()


def test_a_slow_download_that_moves_is_never_cut(script: Script) -> None:
    """Ten pieces with pauses: together longer than any limit, each for itself shorter."""
    data = bytes(1000)
    answer = content(data)
    answer.trickle = 0.15
    script.answers.append(answer)
    store = script.open_store(attempt_timeout=1, operation_timeout=1)
    assert read(store, "a") == data
    store.close()


def test_a_download_that_stands_still_is_cut(script: Script) -> None:
    answer = content(bytes(1000))
    answer.trickle = 60
    script.answers.append(answer)
    store = script.open_store(attempt_timeout=0.3)
    assert seconds(lambda: read(store, "a")) < LONG
    store.close()


def test_a_slow_upload_that_moves_is_never_cut(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh connection still has the time-out of connecting: as one write, the body would have to be gone in that."""
    monkeypatch.setattr(service, "CONNECT_SECONDS", 0.7)
    script.seconds_per_mebibyte = 0.2
    script.answers.append(Answer(200, headers=vouching(bytes(12 * MIB))))
    store = script.open_store(attempt_timeout=1)
    fill(store, "a", bytes(12 * MIB))
    store.close()


def outage(store: S3Store, times: int) -> None:
    for _ in range(times):
        with pytest.raises(Outage):
            read(store, "a")


def test_after_some_outages_nothing_is_asked_for_a_while(script: Script) -> None:
    store = script.open_store(breaker_failures=3, breaker_seconds=0.5)
    script.answers += [Answer(500)] * 3
    outage(store, 2)
    assert store.breaker == "closed"
    outage(store, 1)
    assert store.breaker == "open"
    for call in (lambda: read(store, "a"), lambda: fill(store, "a"), lambda: store.head("a"), lambda: keys(store)):
        with pytest.raises(StoreUnavailable, match="did not answer lately"):
            call()
    assert len(script.asked) == 3
    time.sleep(0.6)
    assert store.breaker == "probing"
    script.answers += [content(ABC)] * 2
    assert read(store, "a") == ABC
    assert store.breaker == "closed"
    assert read(store, "a") == ABC
    store.close()


def test_one_looks_and_when_it_fails_all_wait_again(script: Script) -> None:
    store = script.open_store(breaker_failures=1, breaker_seconds=0.2)
    script.answers.append(Answer(500))
    outage(store, 1)
    time.sleep(0.3)
    looking, go_on = Event(), Event()

    def hang(_: object) -> Answer:
        looking.set()
        go_on.wait(LONG)
        return Answer(500)

    script.always = hang
    prober = Thread(target=outage, args=(store, 1))
    prober.start()
    assert looking.wait(LONG)
    with pytest.raises(StoreUnavailable, match="did not answer lately"):
        read(store, "a")
    go_on.set()
    prober.join()
    assert store.breaker == "open"
    store.close()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(403, "AccessDenied"), Forbidden),
        (Answer(404, "NoSuchKey"), NotFound),
        (Answer(404, "NoSuchBucket"), StoreUnavailable),
        (Answer(400, "BadDigest"), StoreUnavailable),
    ],
)
def test_a_service_that_answers_no_is_no_outage(script: Script, answer: Answer, error: type[Exception]) -> None:
    store = script.open_store(breaker_failures=1)
    script.answers.append(answer)
    with pytest.raises(error):
        read(store, "a")
    assert store.breaker == "closed"
    store.close()


def test_a_body_that_breaks_in_the_middle_is_an_outage(script: Script) -> None:
    store = script.open_store(breaker_failures=1)
    script.answers.append(Answer(200, body=b"abc", promised=10))
    with pytest.raises(Outage):
        read(store, "a")
    assert store.breaker == "open"
    store.close()


def test_a_caller_that_breaks_off_a_look_lets_the_next_one_look(script: Script) -> None:
    store = script.open_store(breaker_failures=1, breaker_seconds=0.1)
    script.answers.append(Answer(500))
    outage(store, 1)
    time.sleep(0.2)
    with pytest.raises(KeyboardInterrupt), store._service.call("a"):
        raise KeyboardInterrupt
    script.answers.append(content(ABC))
    assert read(store, "a") == ABC
    store.close()
