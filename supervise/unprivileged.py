"""Running PostgreSQL, which refuses root, when we are root.

Two ways, because each is forbidden somewhere: a container's seccomp profile may refuse new user namespaces, its
bounding set may lack the capability.

    setpriv     another uid that keeps the one capability it needs to reach its files below a 0700 directory
    namespace   a user namespace in which we are called 65534 (nobody); files stay ours

Both use util-linux, which Debian and Ubuntu cannot be without. No account has to be made: initdb wants its user to have
a name, so the second way also serves a uid that has none, as containers give them.
"""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from core.errors import Misconfigured
from supervise.processes import capture

_NOBODY = 65534


@dataclass(frozen=True)
class Way:
    """How to start a program without root's uid: words before its own, and whose its files must be."""

    name: str
    prefix: tuple[str, ...]
    uid: int
    gid: int

    def own(self, directory: Path) -> None:
        """Give the tree to the uid that will use it; it may have been made the other way, or by another user."""
        if not directory.exists() or directory.stat().st_uid == self.uid:
            return
        for folder, _, files in os.walk(directory, topdown=False):
            for name in files:
                os.chown(os.path.join(folder, name), self.uid, self.gid, follow_symlinks=False)
            os.chown(folder, self.uid, self.gid)  # the top comes last: a cut walk is done again

    def works(self) -> bool:
        """Try it, on the shape that matters: a uid that is not 0 and an armed parent-death signal."""
        tried = capture([*self.prefix, "id", "-u"])
        return tried.code == 0 and tried.said.strip() not in ("", "0")


_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", signal.Signals.SIGKILL.name.removeprefix("SIG"))
"""Armed again, because the kernel forgets it when credentials change."""

AS_WE_ARE = Way("as we are", (), os.geteuid(), os.getegid())
SETPRIV = Way(
    "setpriv",
    (
        "setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups",
        "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override", "--bounding-set=-all,+dac_override",
        *_DIE_WITH_PARENT[1:],
    ),
    _NOBODY,
    _NOBODY,
)  # fmt: skip
NAMESPACE = Way(
    "namespace",
    ("unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}", *_DIE_WITH_PARENT),
    os.geteuid(),
    os.getegid(),
)


@functools.cache
def choose() -> Way:
    """The first way that works here.

    Raises:
        Misconfigured: PostgreSQL refuses our uid and none does.
    """
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return AS_WE_ARE
    for way in (SETPRIV, NAMESPACE) if os.geteuid() == 0 else (NAMESPACE,):
        if shutil.which(way.prefix[0]) and way.works():
            return way
    raise Misconfigured(
        f"PostgreSQL does not run as uid {os.geteuid()}, and neither setpriv nor unshare helps here: use another user"
    )


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
