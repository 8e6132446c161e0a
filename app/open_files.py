"""How many files a web process may open."""

from __future__ import annotations

import resource


def allow(wanted: int) -> None:
    """Allow as many open files as connections, and what is read for them, may need, where the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
