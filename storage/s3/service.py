"""One S3 service as this process knows it: a client, when to try again, when to stop, and whether it answers at all.

botocore sends, signs and repeats (its `standard` mode: exponential back-off with jitter, throttling slower than the
rest, a budget that ends storms of retries). Three hooks in its events add what it has no setting for: the end of the
whole operation, a time-out for silence that shrinks towards that end, and another attempt for a body that was damaged
on its way. A call overruns its end by one back-off at most.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from random import uniform
from typing import TYPE_CHECKING, Any

import boto3.session
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader, create_loader

from core.breaker import Breaker
from core.errors import Archived, MillraceError, Misconfigured, StoreUnavailable
from storage.s3.deadline import Deadline
from storage.s3.errors import DAMAGED_CODES, Outage, translated
from storage.s3.options import S3Options

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_SECONDS = 5.0
CONNECTIONS = 64
BYTES_PER_SECOND = 1_000_000
"""What an operation may count on: its time grows with its body by this."""
STREAMED = frozenset({"GetObject"})
"""Its time-out stays with the connection while the body is read, so it must not shrink."""


class Service:
    def __init__(self, name: str, options: S3Options) -> None:
        self.name = name
        self.breaker = Breaker(failures=options.breaker_failures, seconds=options.breaker_seconds)
        self._options = options
        self._made: S3Client | None = None
        self._making = threading.Lock()
        self._here = threading.local()

    @property
    def client(self) -> S3Client:
        """Made on first use, so that opening the stores costs nothing and no connection is shared over a fork."""
        with self._making:
            if self._made is None:
                self._made = make_client(self.name, self._options)
                events = self._made.meta.events
                events.register("request-created.s3", self._begin_attempt)
                events.register_first("needs-retry.s3", self._decide)  # type: ignore[arg-type]  # the stub knows no answers
                if self._options.checksum == "md5":
                    events.register_last("before-call.s3.DeleteObjects", _with_md5)
            return self._made

    @property
    def account(self) -> tuple[object, ...]:
        """Stores that share it can copy from each other within the service."""
        options = self._options
        return options.endpoint_url, options.region, options.access_key_id, options.secret_access_key

    def deadline(self, size: int = 0) -> Deadline:
        return Deadline(self._options.operation_timeout + size / BYTES_PER_SECOND)

    @contextmanager
    def call(self, subject: str, deadline: Deadline | None = None) -> Iterator[S3Client]:
        """For one request, with its attempts.

        Raises:
            Outage: no answer, or none in time.
            StoreUnavailable: there was none lately, so this one was not sent.
        """
        deadline = deadline or self.deadline()
        deadline.check(subject)
        if not self.breaker.admits(self._options.attempt_timeout):
            wait = max(1, round(self._options.breaker_seconds))
            raise StoreUnavailable(f"{self.name} did not answer lately; trying again shortly", retry_after=wait)
        self._here.deadline = deadline
        try:
            with translated(subject):
                yield self.client
        except Outage:
            if deadline.cancelled:
                self.breaker.abandoned()
            else:
                self.breaker.failed()
            raise
        except MillraceError as error:
            self.breaker.succeeded()  # it said no, but it said something
            if isinstance(error, Archived):
                error.retry_after = self._options.restore_wait
            raise
        except BaseException:
            self.breaker.abandoned()
            raise
        else:
            self.breaker.succeeded()
        finally:
            self._here.deadline = None

    def close(self) -> None:
        with self._making:
            if self._made:
                self._made.close()
            self._made = None

    def _begin_attempt(self, request: Any, operation_name: str, **_: Any) -> None:
        deadline: Deadline | None = getattr(self._here, "deadline", None)
        if deadline is None:
            return
        deadline.check(f"{self.name}: {operation_name}")
        if operation_name not in STREAMED:
            request.context["read_timeout"] = max(0.001, min(self._options.attempt_timeout, deadline.left))

    def _decide(self, response: Any, attempts: int, **_: Any) -> float | bool | None:
        """Seconds until the next attempt; False: no more; None: botocore decides."""
        deadline: Deadline | None = getattr(self._here, "deadline", None)
        if deadline is not None and deadline.left <= 0:
            return False
        code = response[1].get("Error", {}).get("Code") if response else None
        if code in DAMAGED_CODES and attempts < self._options.max_attempts:
            return uniform(0, 0.05 * 2**attempts)
        return None


def _with_md5(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    """botocore puts a CRC32 on a deletion, which must carry something. Older services want `Content-MD5`."""
    context.get("checksum", {}).pop("request_algorithm", None)
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


@cache
def _descriptions() -> Loader:
    """botocore's description of S3 is large: read once for all stores of a process."""
    return create_loader()


def make_client(name: str, options: S3Options) -> S3Client:
    """A thread-safe client for this process; it connects to nothing yet.

    Raises:
        Misconfigured: botocore cannot work with these options.
    """
    secret = options.secret_access_key
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": options.addressing_style},
        connect_timeout=min(CONNECT_SECONDS, options.attempt_timeout),
        read_timeout=options.attempt_timeout,
        retries={"mode": "standard", "total_max_attempts": options.max_attempts},
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        # Later defaults add checksums that other S3 services do not know; ours are sent explicitly.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    session = botocore.session.get_session()
    session.register_component("data_loader", _descriptions())
    try:
        return boto3.session.Session(botocore_session=session).client(
            "s3",
            region_name=options.region or "us-east-1",
            endpoint_url=str(options.endpoint_url).rstrip("/") if options.endpoint_url else None,
            aws_access_key_id=options.access_key_id,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise Misconfigured(f"stores.{name}: {error}") from error
