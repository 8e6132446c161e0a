"""What can be said of an address without asking anybody else than this machine."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parsed(text: str) -> Address | None:
    """Read an IP literal, IPv6 with or without brackets; None for all else. IPv4 within IPv6 is that IPv4."""
    try:
        address = ipaddress.ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches what listens there. A name is looked up, and all it stands for counts."""
    if not host:
        return False  # every address
    address = parsed(host.partition("%")[0])
    if address is not None:
        return address.is_loopback
    try:
        found = {str(one[4][0]) for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return all(is_loopback(one) for one in found)


def within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
