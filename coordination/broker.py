"""A look at the broker from outside Celery: is it there, and how long is a queue."""

from __future__ import annotations

from pydantic import SecretStr
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, RedisError
from redis.retry import Retry

from core.errors import BrokerFull, BrokerUnavailable

WRITABLE_MS = 60_000


class Broker:
    """Connects on first use, waits at most `seconds` for each answer, never retries: those who ask have other work."""

    def __init__(self, url: SecretStr, *, key_prefix: str = "", seconds: float) -> None:
        self._prefix = key_prefix
        self._redis = Redis.from_url(
            url.get_secret_value(),
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),
        )

    def ping(self) -> None:
        """
        Raises:
            BrokerUnavailable: it is away, hangs, or refuses.
        """
        try:
            self._redis.ping()
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"Redis does not answer: {type(error).__name__}") from None

    def depth(self, queue: str) -> int:
        """How many messages wait in a queue of Celery's, if they can be taken at all: to take one, Redis must write.

        Raises:
            BrokerFull: it has no memory left.
            BrokerUnavailable: as `ping`, or it takes no writes: a replica, its disk refuses.
        """
        try:
            asked = self._redis.pipeline(transaction=False)
            asked.set(self._prefix + "writable", "1", px=WRITABLE_MS)
            asked.llen(self._prefix + queue)
            return int(asked.execute()[1])
        except OutOfMemoryError:
            raise BrokerFull("Redis has no memory left") from None
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"Redis does not answer: {type(error).__name__}") from None

    def trim(self, queue: str, keep: int) -> None:
        """Drop all but the oldest messages of a queue, with a command that a full Redis allows.

        Raises:
            BrokerUnavailable: as `ping`.
        """
        try:
            self._redis.ltrim(self._prefix + queue, -keep, -1)  # kombu pushes at the head and takes from the tail
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"Redis does not answer: {type(error).__name__}") from None

    def close(self) -> None:
        self._redis.close()
