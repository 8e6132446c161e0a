"""One bridge, and a network namespace with one address for each machine of the fleet. Made in a namespace of the
test's own, with which they go."""

from __future__ import annotations

import subprocess

from tests.system.programs import program

BRIDGE = "fleet"
CLIENTS = [f"10.77.0.{number}" for number in range(101, 109)]
"""Addresses on the bridge itself, from which clients come: no address may have more than its share of the threads."""


def own_mounts() -> None:
    """Keep what `ip netns` mounts in this mount namespace."""
    _run(program("mount"), "-t", "tmpfs", "tmpfs", "/run")


def inside(name: str) -> list[str]:
    """Return the words that begin a command in a machine's network."""
    return [program("ip"), "netns", "exec", name]


class Network:
    def __init__(self) -> None:
        _ip("link", "set", "lo", "up")
        _ip("link", "add", BRIDGE, "type", "bridge")
        for address in ["10.77.0.1", *CLIENTS]:
            _ip("address", "add", f"{address}/16", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")

    def add(self, name: str, number: int) -> str:
        """Add a machine of this name; return its address."""
        _ip("netns", "add", name)
        _ip("link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", f"to-{name}", "master", BRIDGE, "up")
        address = f"10.77.0.{number}"
        _ip("-n", name, "address", "add", f"{address}/16", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        return address

    def cut(self, name: str) -> None:
        _ip("link", "set", f"to-{name}", "down")

    def heal(self, name: str) -> None:
        _ip("link", "set", f"to-{name}", "up")


def _ip(*words: str) -> None:
    _run(program("ip"), *words)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
