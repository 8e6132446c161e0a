"""The first process of a host: starts lines of the Procfile by their names and starts again what ends, as an init
would. TERM ends all of them, and then itself; with its own death the kernel ends every process of the host at once.

keeper.py HOSTNAME PROCFILE LOGS NAME…
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PAUSE_SECONDS = 1.0


class Keeper:
    def __init__(self, procfile: Path, logs: Path, names: list[str]) -> None:
        lines = [line.partition(":") for line in procfile.read_text().splitlines() if not line.startswith("#")]
        self._commands = {name: command.strip() for name, _, command in lines if name in names}
        self._logs = logs
        self._running: dict[int, str] = {}
        self._ending = False

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._end)
        for name in self._commands:
            self._start(name)
        while self._running:
            pid, _ = os.wait()  # also those whose parents died
            name = self._running.pop(pid, None)
            if name is not None and not self._ending:
                time.sleep(PAUSE_SECONDS)
                self._start(name)

    def _start(self, name: str) -> None:
        with (self._logs / f"{name}.log").open("ab") as log:
            command = ["/bin/sh", "-c", f"exec {self._commands[name]}"]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._running[process.pid] = name
        if self._ending:  # heard while it was being started
            process.send_signal(signal.SIGTERM)
        process.returncode = 0  # it is waited for above

    def _end(self, *_: Any) -> None:
        self._ending = True
        for pid in self._running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    hostname, procfile, logs, *names = sys.argv[1:]
    socket.sethostname(hostname)
    Keeper(Path(procfile), Path(logs), names).run()
