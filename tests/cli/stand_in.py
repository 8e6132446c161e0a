"""A supervisor with light children, as a process of its own: `stand_in.py HOME NAME=SHELL-COMMAND …`.

A child is ready once it has made the file `$READY` in the home, which every command does by `touch`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from cli.terminal import say
from core import troubles
from core.errors import MillraceError
from supervise import supervisor
from supervise.make_signals import MakeParent
from supervise.python_process import Process
from supervise.run_directory import RunDirectory
from supervise.shutdown_signal import Stop
from supervise.supervisor import StackFailed, Supervisor


def child(home: Path, name: str, script: str) -> Process:
    ready = home / f"{name}.ready"
    ready.unlink(missing_ok=True)
    variables = {**os.environ, "MILLRACE_HOME": str(home), "READY": str(ready)}
    ladder = ((signal.SIGTERM, 1.0), (signal.SIGKILL, 1.0))
    return Process(name, ["/bin/bash", "-c", script], variables, ladder, probe=ready.exists)


def main() -> None:
    home = Path(sys.argv[1])
    troubles.keep_in(home / "troubles")
    supervisor.LOG_CHECK_SECONDS = float(os.environ.get("LOG_CHECK_SECONDS", "60"))
    stop = Stop.on((signal.SIGTERM, signal.SIGINT))
    run = RunDirectory(home)
    make = MakeParent()
    with run.locked():
        for name in run.clear():
            say(f"stopped {name}")
        (home / "log").mkdir(exist_ok=True)
        stack = Supervisor(run, home / "log", say)
        try:
            children = [child(home, *word.split("=", 1)) for word in sys.argv[2:]]
            stack.start(children)
            stack.wait_until_ready(children, stop=stop)
            say("ready")
            stack.watch(stop, lambda: stop.set() if make.wants_us_to_end() else None)
        finally:
            stack.stop()


if __name__ == "__main__":
    try:
        main()
    except (StackFailed, MillraceError) as error:
        sys.exit(f"failed: {error.detail}")
