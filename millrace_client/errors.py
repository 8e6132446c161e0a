"""What a client of Millrace meets."""

from __future__ import annotations


class ClientError(Exception):
    """Base of them. Its text is one sentence for the user."""


class ServiceGone(ClientError):
    """The service does not answer at its address, and that for longer than the caller's patience."""


class Interrupted(ClientError):
    """The user wants to end; what was being sent is abandoned."""
