from __future__ import annotations

import subprocess
import sys
import threading

from supervise.shutdown_signal import Stop

FLOODED = """
import os, signal, sys, threading
from supervise.shutdown_signal import Stop
stop = Stop.on((signal.SIGTERM,))
def flood():
    for _ in range(3000):
        os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=flood).start()
for _ in range(3000):
    stop.wait(0.001)
print("ended", stop.is_set())
"""


def test_signals_that_come_while_one_is_handled_do_no_harm() -> None:
    done = subprocess.run([sys.executable, "-c", FLOODED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "ended True\n"


def test_everybody_who_waits_is_woken() -> None:
    stop = Stop()
    assert not stop.wait(0.01)
    waiters = [threading.Thread(target=stop.wait, args=(30,)) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    stop.set()
    for waiter in waiters:
        waiter.join(10)
        assert not waiter.is_alive()
    assert stop.wait()
    assert stop.is_set()
