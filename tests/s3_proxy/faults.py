"""What can go wrong between a client and an S3 service, one class for each."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar
from xml.sax.saxutils import escape

from tests.s3_proxy.messages import Answer, HungUp, Request, refusal


class Fault:
    takes: ClassVar[float] = 1.0
    """How much of a request's body is read before the connection is cut."""

    def before(self, request: Request) -> Answer | None:
        """Called with the whole request; an answer given here is the service's last word, and it never hears of it."""
        del request
        return None

    def after(self, request: Request, answer: Answer) -> None:
        """Called with the service's answer, which may be changed, or never arrive: `HungUp`."""


@dataclass(frozen=True)
class Refuse(Fault):
    status: int
    code: str

    def before(self, request: Request) -> Answer | None:
        del request
        return refusal(self.status, self.code, "injected")


SLOW_DOWN = Refuse(503, "SlowDown")
INTERNAL_ERROR = Refuse(500, "InternalError")
FORBIDDEN = Refuse(403, "AccessDenied")
PRECONDITION_FAILED = Refuse(412, "PreconditionFailed")
CONFLICT = Refuse(409, "ConditionalRequestConflict")


@dataclass(frozen=True)
class Delay(Fault):
    seconds: float

    def before(self, request: Request) -> Answer | None:
        del request
        time.sleep(self.seconds)
        return None


class CutRequest(Fault):
    """The connection breaks in the middle of the request's body, and the service sees none of it."""

    takes = 0.5


class FlipRequest(Fault):
    """One bit of the body is another when it arrives."""

    def before(self, request: Request) -> Answer | None:
        request.body.seek(request.size // 2)
        byte = request.body.read(1)
        if byte:
            request.body.seek(request.size // 2)
            request.body.write(bytes([byte[0] ^ 1]))
        return None


@dataclass(frozen=True)
class LoseAnswer(Fault):
    """The service has done it, and nothing is heard for so long; then the connection is closed."""

    seconds: float = 0

    def after(self, request: Request, answer: Answer) -> None:
        del request
        for _ in answer.blocks:  # or the service might not be done
            pass
        time.sleep(self.seconds)
        raise HungUp


class CutAnswer(Fault):
    """The connection breaks in the middle of the answer's body; an answer that has none is lost."""

    def after(self, request: Request, answer: Answer) -> None:
        if request.method == "HEAD" or not answer.size:
            raise HungUp
        answer.blocks = _cut(answer.blocks, answer.size // 2)


class FlipAnswer(Fault):
    """One bit of the answer's body is another when it arrives."""

    def after(self, request: Request, answer: Answer) -> None:
        del request
        answer.blocks = _flipped(answer.blocks, answer.size // 2)


@dataclass(frozen=True)
class Hide(Fault):
    """Listings do not show the key."""

    key: str

    def after(self, request: Request, answer: Answer) -> None:
        del request
        text = b"".join(answer.blocks)
        entry = rb"<Contents>\s*<Key>%s</Key>.*?</Contents>" % re.escape(escape(self.key).encode())
        text = re.sub(entry, b"", text, flags=re.DOTALL)
        answer.headers["content-length"] = str(len(text))
        answer.blocks = [text]


def _cut(blocks: Iterable[bytes], at: int) -> Iterator[bytes]:
    for block in blocks:
        yield block[:at]
        at -= len(block)
        if at <= 0:
            break
    raise HungUp


def _flipped(blocks: Iterable[bytes], at: int) -> Iterator[bytes]:
    for block in blocks:
        if 0 <= at < len(block):
            block = block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :]
        at -= len(block)
        yield block
