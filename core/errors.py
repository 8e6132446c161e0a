"""Every error that crosses a room's edge.

    MillraceError
    ├── Rejected              what the caller sent; the same request fails again
    │   ├── BadRequest · BadPath · IncompleteBody · StalledBody · TooLarge · UnsupportedType
    │   ├── DigestMismatch · TooManyPixels · TooManyFrames · DecodedTooLarge · BadImage
    │   ├── IdempotencyConflict
    │   ├── Misdirected · OtherSite
    │   └── InvalidRange
    ├── NotFound              the name means nothing here
    ├── AlreadyExists         create-only, and something else is there
    ├── Corrupt               stored or staged bytes are not the ones that were promised
    ├── Superseded            a lease, fence or reservation is no longer ours: begin again from the truth
    ├── Unavailable           a dependency cannot answer now; the work waits and nothing is counted against it
    │   ├── DatabaseUnavailable · BrokerUnavailable · StoreUnavailable
    │   │   ├── StoreFull     no space or quota left in a store (below StoreUnavailable)
    │   │   ├── NoStore       there is nothing where a store should be: a disk that is not mounted, or a new store
    │   │   └── StrangeStore  what is there is not what this installation filled
    │   ├── Archived          the bytes are there, and must be restored from an archive before they can be read
    │   ├── Forbidden         a store refuses our credentials: an operator can mend it, the upload is innocent
    │   ├── StagingFull       this host's staging is over its high-water mark
    │   ├── Busy              a bounded resource of this process is taken
    │   └── AskStagingHost    only the host that accepted the upload knows it so far
    └── Misconfigured         settings that cannot work; the process must not start

`code` is the stable word used in problem documents, failure rows and logs. `retryable` says whether the same call can
succeed later without anybody changing the input.
"""

from __future__ import annotations

from typing import ClassVar


class MillraceError(Exception):
    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Interrupted(BaseException):
    """Work is told to end where it is: no error, and no Exception, so that nothing that translates, repeats or counts
    errors takes it for one. What it leaves may be done again."""


class Rejected(MillraceError):
    code = "rejected"


class BadRequest(Rejected):
    code = "bad-request"


class BadPath(Rejected):
    code = "bad-path"


class IncompleteBody(Rejected):
    code = "incomplete-body"
    retryable = True


class StalledBody(Rejected):
    code = "stalled-body"
    retryable = True


class TooLarge(Rejected):
    code = "too-large"


class UnsupportedType(Rejected):
    code = "unsupported-type"


class DigestMismatch(Rejected):
    code = "digest-mismatch"


class TooManyPixels(Rejected):
    code = "too-many-pixels"


class TooManyFrames(Rejected):
    code = "too-many-frames"


class DecodedTooLarge(Rejected):
    code = "decoded-too-large"


class BadImage(Rejected):
    code = "bad-image"


class IdempotencyConflict(Rejected):
    code = "idempotency-conflict"


class Misdirected(Rejected):
    code = "misdirected"


class OtherSite(Rejected):
    code = "other-site"


class InvalidRange(Rejected):
    """`size` is how many bytes there are, where that is known."""

    code = "invalid-range"

    def __init__(self, detail: str, *, size: int | None = None) -> None:
        super().__init__(detail)
        self.size = size


class NotFound(MillraceError):
    code = "not-found"


class AlreadyExists(MillraceError):
    code = "already-exists"


class Corrupt(MillraceError):
    code = "corrupt"


class Superseded(MillraceError):
    code = "superseded"
    retryable = True


class Unavailable(MillraceError):
    """`retry_after` is in seconds: when asking again is sensible."""

    code = "unavailable"
    retryable = True

    def __init__(self, detail: str, *, retry_after: int = 5) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class DatabaseUnavailable(Unavailable):
    code = "database-unavailable"


class BrokerUnavailable(Unavailable):
    code = "broker-unavailable"


class BrokerFull(BrokerUnavailable):
    """It takes no message and gives none away until something in it goes."""


class StoreUnavailable(Unavailable):
    code = "store-unavailable"


class StoreFull(StoreUnavailable):
    code = "store-full"


class NoStore(StoreUnavailable):
    pass


class StrangeStore(StoreUnavailable):
    code = "strange-store"


class Archived(Unavailable):
    """`retry_after` is how long a restoration takes as a rule."""

    code = "archived"


class Forbidden(Unavailable):
    code = "store-forbidden"


class StagingFull(Unavailable):
    code = "staging-full"


class Busy(Unavailable):
    code = "busy"


class AskStagingHost(Unavailable):
    code = "ask-staging-host"


class Misconfigured(MillraceError):
    code = "misconfigured"
