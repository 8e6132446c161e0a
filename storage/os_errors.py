"""What the operating system says about files, in the project's own errors."""

from __future__ import annotations

import errno
from types import TracebackType

from core.errors import Forbidden, StoreFull, StoreUnavailable, Unavailable

_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class translated:  # noqa: N801 - reads as the function it stands for
    """Turn an `OSError` into `Forbidden` (rights), `StoreFull` (no space, no quota) or `StoreUnavailable` (the rest).

    Where a missing file has a meaning of its own, catch it inside. A class, because every read enters it, and a
    generator costs several times as much.
    """

    __slots__ = ("_subject",)

    def __init__(self, subject: str) -> None:
        self._subject = subject

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise in_our_words(self._subject, error) from error


def in_our_words(subject: str, error: OSError) -> Unavailable:
    reason = f"{subject}: {error.strerror or error}"
    if error.errno in _REFUSED:
        return Forbidden(reason)
    if error.errno in _FULL:
        return StoreFull(reason, retry_after=15)
    return StoreUnavailable(reason)
