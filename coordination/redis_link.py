"""The way to Redis for those who can do without it: short waits, no retries, and a breaker.

Guarantees: a call takes at most about `seconds`; after three in a row that failed Redis is left alone for a second, so
that one that hangs costs nothing; after a restart it is used again. No exception of the library gets out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import SecretStr
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from core.breaker import Breaker
from core.errors import BrokerUnavailable

T = TypeVar("T")

CONNECTIONS = 1024
"""More than a process has threads: waiting for a connection would be waiting without a bound."""


class RedisLink:
    def __init__(self, redis: Redis, *, seconds: float) -> None:
        """`redis` must not wait longer than `seconds` for an answer."""
        self.redis = redis
        self._seconds = seconds
        self._breaker = Breaker()

    @classmethod
    def to(cls, url: SecretStr, *, seconds: float) -> RedisLink:
        """Connects on first use."""
        redis = Redis.from_url(
            url.get_secret_value(),
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),
            max_connections=CONNECTIONS,
        )
        return cls(redis, seconds=seconds)

    def ask(self, command: Callable[[Redis], T]) -> T:
        """
        Raises:
            BrokerUnavailable: Redis is away, hangs, refuses, or did so lately. What was to be written may be there.
        """
        if not self._breaker.admits(self._seconds):
            raise BrokerUnavailable("Redis did not answer lately; trying again shortly", retry_after=1)
        try:
            answer = command(self.redis)
        except (RedisError, OSError) as error:
            self._breaker.failed()
            raise BrokerUnavailable(f"Redis does not answer: {type(error).__name__}") from None
        self._breaker.succeeded()
        return answer

    def close(self) -> None:
        self.redis.close()
