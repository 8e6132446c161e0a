"""Named places where a test can make a fault happen. Off unless `MILLRACE_FAILPOINTS` names a directory.

To arm the failpoint `ingest.after-put`, a test writes a file of that name into the directory; its text is the action:

    kill                 SIGKILL this process
    stop                 SIGSTOP this process (the test sends SIGCONT)
    sleep SECONDS        go on after a pause
    errno NAME           raise OSError(NAME), e.g. `errno ENOSPC`
    raise                raise an error that no code foresees
    signal NAME          send this process a signal, e.g. `signal SIGBUS`
    kill-group           SIGKILL this process's group

An armed file fires once: the process that renames it to `<name>.fired` is the one that acts, so of many processes one
does. A second line `always` makes it fire every time. `failpoint(name, subject)` also looks for `<name>@<subject>`, so
that one upload among many can be hit. A file `clock-ahead` with a number of seconds puts the wall clock of all
processes that look there so far ahead.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from datetime import timedelta

_DIRECTORY = os.environ.get("MILLRACE_FAILPOINTS", "")


_RIGHT = timedelta(0)


def clock_ahead() -> timedelta:
    if not _DIRECTORY:
        return _RIGHT
    try:
        with open(os.path.join(_DIRECTORY, "clock-ahead"), encoding="ascii") as file:
            return timedelta(seconds=float(file.read()))
    except (FileNotFoundError, ValueError):
        return _RIGHT


def failpoint(name: str, subject: object = "") -> None:
    if not _DIRECTORY:
        return
    _fire(f"{name}@{subject}" if subject else "")
    _fire(name)


def _fire(name: str) -> None:
    armed = os.path.join(_DIRECTORY, name)
    if not name or not os.path.isfile(armed):
        return
    try:
        with open(armed, encoding="ascii") as file:
            action, *rest = file.read().splitlines()
        if "always" not in rest:
            os.rename(armed, armed + ".fired")
    except (FileNotFoundError, ValueError):
        return  # another process took it, or it is half written
    _act(action)


def _act(action: str) -> None:
    verb, _, argument = action.partition(" ")
    if verb == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "kill-group":
        os.killpg(os.getpgrp(), signal.SIGKILL)
    elif verb == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif verb == "sleep":
        time.sleep(float(argument))
    elif verb == "errno":
        number = getattr(errno, argument)
        raise OSError(number, os.strerror(number))
    elif verb == "raise":
        raise RuntimeError("a failpoint says so")
    elif verb == "signal":
        os.kill(os.getpid(), signal.Signals[argument])
    else:
        raise ValueError(f"unknown failpoint action {action!r}")
