"""What the operating system says about files, in the project's own errors."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import Forbidden, StoreUnavailable

_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextmanager
def translated(subject: str) -> Iterator[None]:
    """Turn an `OSError` into `Forbidden` (rights) or `StoreUnavailable` (no space, I/O error, anything else).

    Where a missing file has a meaning of its own, catch it inside.
    """
    try:
        yield
    except OSError as error:
        reason = f"{subject}: {error.strerror or error}"
        if error.errno in _REFUSED:
            raise Forbidden(reason) from error
        raise StoreUnavailable(reason) from error
