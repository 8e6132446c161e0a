"""Whether a Redis or Valkey is one that a broker can rest on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from pydantic import SecretStr
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

from core.errors import BrokerUnavailable
from core.findings import Check, Finding, note, ok, problem
from core.sections import MIB
from core.timings import measure

ANSWER_SECONDS = 3
NEARLY_FULL = 0.8
SLOW_MS = 20


class RedisProbe:
    """Connects on first use. Every method may end with BrokerUnavailable."""

    def __init__(self, url: SecretStr, *, key_prefix: str) -> None:
        self._prefix = key_prefix
        self._redis: Redis = Redis.from_url(
            url.get_secret_value(),
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )

    def checks(self) -> Sequence[Check]:
        return (
            Check("answers", self._answers, needed=True),
            Check("write", self._write),
            Check("eviction", self._eviction),
            Check("memory", self._memory),
            Check("persistence", self._persistence),
            Check("latency", self._latency),
        )

    def close(self) -> None:
        self._redis.close()

    def _answers(self) -> Finding:
        server = self._info("server")
        version = server.get("valkey_version") or server.get("redis_version") or "unknown"
        name = "Valkey" if "valkey_version" in server else "Redis"
        if self._info("replication").get("role") == "slave":
            return problem("answers", f"{name} {version} is a replica", "point redis_url at the primary")
        return ok("answers", f"{name} {version}, primary")

    def _write(self) -> Finding:
        key = f"{self._prefix}doctor:{uuid4()}"
        self._say(lambda: self._redis.set(key, "probe", ex=10))
        found = self._say(lambda: self._redis.getdel(key))
        if found not in (b"probe", "probe"):
            return problem("write", "a key that was just written is gone")
        return ok("write", f"keys below {self._prefix!r} can be written and removed")

    def _eviction(self) -> Finding:
        policy = self._info("memory").get("maxmemory_policy", "unknown")
        if policy == "noeviction":
            return ok("eviction", "noeviction: a full server refuses instead of dropping messages")
        return problem(
            "eviction",
            f"maxmemory-policy is {policy}: a full server silently drops messages and leases",
            "set maxmemory-policy noeviction; use another server for caches that may be evicted",
        )

    def _memory(self) -> Finding:
        memory = self._info("memory")
        used, limit = int(memory.get("used_memory", 0)), int(memory.get("maxmemory", 0))
        if not limit:
            return note(
                "memory",
                f"{used // MIB} MiB used, without a limit",
                "set maxmemory below what the machine has: then Redis refuses before the kernel kills it",
                used_bytes=used,
            )
        said = f"{used // MIB} of {limit // MIB} MiB used"
        if used > limit * NEARLY_FULL:
            return problem("memory", said, "raise maxmemory, or see which queue nobody reads", used_bytes=used)
        return ok("memory", said, used_bytes=used)

    def _persistence(self) -> Finding:
        kept = self._info("persistence")
        if int(kept.get("aof_enabled", 0)):
            if kept.get("aof_last_write_status", "ok") != "ok":
                return problem("persistence", "the append-only file cannot be written", "look at its disk")
            return ok("persistence", "append-only file: hints survive a restart")
        return note(
            "persistence",
            "no append-only file: a restart loses the hints, and the sweep finds the work again within"
            " work.sweep_seconds",
            "set appendonly yes to spare that wait",
        )

    def _latency(self) -> Finding:
        timings = measure(lambda _: self._say(self._redis.ping), rounds=50, seconds=2)
        said = f"p50 {timings.p50_ms:.2f} ms, p99 {timings.p99_ms:.2f} ms"
        figures = {"p50_ms": timings.p50_ms, "p99_ms": timings.p99_ms}
        if timings.p50_ms > SLOW_MS:
            return note("latency", said, "put Redis nearer to the workers: each task asks it a few times", **figures)
        return ok("latency", said, **figures)

    def _info(self, section: str) -> dict[str, Any]:
        found: dict[str, Any] = self._say(lambda: self._redis.info(section))
        return found

    def _say(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (AuthenticationError, NoPermissionError) as error:
            raise BrokerUnavailable(f"Redis refuses this user: {error}") from None
        except ResponseError as error:
            raise BrokerUnavailable(f"Redis refuses: {error}") from None
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"Redis does not answer: {type(error).__name__}") from None
