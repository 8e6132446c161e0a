"""RocksDB's errors in the project's own words. The binding raises plain `Exception`s with RocksDB's status as text."""

from __future__ import annotations

import errno
import os
from types import TracebackType

from core.errors import Corrupt, Forbidden, MillraceError, StoreFull, StoreUnavailable

_FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))
_REFUSED = tuple(os.strerror(number) for number in (errno.EACCES, errno.EPERM, errno.EROFS))
_LOCKED = ("While lock file", "lock hold by current process")


class translated:  # noqa: N801 - reads as the function it stands for
    """Around calls of the library only: whatever is raised inside and is not ours counts as the library's."""

    __slots__ = ("_subject",)

    def __init__(self, subject: str) -> None:
        self._subject = subject

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, MillraceError):
            raise _in_our_words(self._subject, error) from error


def held_by_another(error: StoreUnavailable) -> bool:
    return any(sign in error.detail for sign in _LOCKED)


def _in_our_words(subject: str, error: Exception) -> MillraceError:
    said = str(error)
    reason = f"{subject}: {said}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(reason, retry_after=15)
    if any(sign in said for sign in _FULL):
        return StoreFull(reason, retry_after=15)
    if any(sign in said for sign in _REFUSED):
        return Forbidden(reason)
    if said.startswith("Corruption"):
        return Corrupt(reason)
    return StoreUnavailable(reason)
