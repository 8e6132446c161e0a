"""How HAProxy is told of a fleet, here and in the soak."""

from __future__ import annotations

from collections.abc import Mapping

_CONFIGURATION = """
global
    maxconn 5000

defaults
    mode http
    timeout connect 5s
    timeout client 120s
    timeout server 120s
    option forwardfor
    timeout check 10s
    option httpchk GET /readyz?for=accept
    default-server check inter 500ms fall 2 rise 1

frontend door
    bind {door}
    default_backend hosts

backend hosts
    balance roundrobin
{servers}
"""


def configuration(door: str, servers: Mapping[str, str]) -> str:
    """Return a configuration of HAProxy: what it listens on and what is behind it, each as address:port."""
    lines = "\n".join(f"    server {name} {address}" for name, address in servers.items())
    return _CONFIGURATION.format(door=door, servers=lines)
