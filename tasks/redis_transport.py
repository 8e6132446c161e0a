"""kombu's Redis transport, with two ways out of its ways to stop for ever.

An acknowledgement that does not reach Redis still ends the message here. In kombu (5.7) it went on counting against the
prefetch limit: with the limit reached, the consumer never asked Redis for anything again, and so never noticed that its
connection was gone. And what is in a queue without being a message is dropped with a log line; it ended the worker.
"""

from __future__ import annotations

import logging
from queue import Empty
from typing import Any

from kombu import transport
from kombu.transport import redis

log = logging.getLogger(__name__)


class QoS(redis.QoS):
    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]  # kombu has no types
        finally:
            self._quick_ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue=requeue)  # type: ignore[no-untyped-call]  # kombu has no types
        finally:
            self._quick_ack(delivery_tag)


class Channel(redis.Channel):
    QoS = QoS

    def _brpop_read(self, **options: Any) -> bool:
        try:
            read: bool = super()._brpop_read(**options)  # type: ignore[no-untyped-call]  # kombu has no types
        except (AttributeError, KeyError, TypeError, ValueError):
            log.exception("what was in the queue is no message: dropped")
            raise Empty from None
        return read


class Transport(redis.Transport):
    Channel = Channel


def install() -> None:
    """For every `redis://` and `rediss://` of this process."""
    for scheme in ("redis", "rediss"):
        transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"
