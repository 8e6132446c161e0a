"""Who a client is: by the address that it comes from, or the one that a proxy we trust names."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from core.addresses import Address, Network, parsed, within

FORWARDED = re.compile(rb"^x-forwarded-for[ \t]*:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
PORT = re.compile(r"(?:(\d+\.\d+\.\d+\.\d+)|(\[[^\]]*\])):\d+")


class Peers:
    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = trusted

    def client_of(self, peer: object, head: bytes | bytearray) -> str:
        """Return the last address of `X-Forwarded-For` that is no proxy of ours, if the peer is one; else the peer's.

        `peer` is what `accept` returned; a client of a Unix socket counts as a proxy of ours. Empty: the client has no
        address, as on a Unix socket without that field.
        """
        address = parsed(str(peer[0])) if isinstance(peer, tuple) else None
        if isinstance(peer, tuple) and (address is None or not within(address, self._trusted)):
            return _named(address)
        for entry in reversed(_forwarded(head)):
            found = parsed(_without_port(entry))
            if found is None:
                break
            address = found
            if not within(found, self._trusted):
                break
        return _named(address)


def _forwarded(head: bytes | bytearray) -> list[str]:
    end = head.find(b"\r\n\r\n")
    fields = FORWARDED.findall(bytes(head if end < 0 else head[:end]))
    return [entry.strip() for entry in b",".join(fields).decode("latin-1").split(",")] if fields else []


def _without_port(entry: str) -> str:
    found = PORT.fullmatch(entry)
    return entry if found is None else found[1] or found[2]


def _named(address: Address | None) -> str:
    return "" if address is None else str(address)


def share_of(client: str) -> str:
    """Return what a client counts as: its address, or its IPv6 network, as all 2^64 addresses in that are its own."""
    return str(ipaddress.IPv6Network((client, 64), strict=False)) if ":" in client else client
