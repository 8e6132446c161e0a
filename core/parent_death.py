"""Dying with the parent: `PR_SET_PDEATHSIG`, for a process itself or for a program it is about to become.

The kernel sends the signal when the *thread* that forked this process ends, so fork from a thread that lives as long
as the parent means to. As a script, `python -I -S parent_death.py PARENT SIGNAL PROGRAM [ARGUMENT …]` arms the signal
and executes the program: no code of ours runs between fork and exec in the parent's (threaded) image.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(parent: int, death: int = signal.SIGKILL) -> None:
    """From now on `death` arrives when `parent` ends; if it has ended already, this process ends here."""
    _prctl(_PR_SET_PDEATHSIG, death)
    if os.getppid() != parent:
        os._exit(128 + death)


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent dies."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main() -> None:
    parent, death, *command = sys.argv[1:]
    die_with_parent(int(parent), int(death))
    try:
        os.execvp(command[0], command)  # noqa: S606 - an argument list, never a shell
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        os._exit(127)


if __name__ == "__main__":
    main()
