"""What the progress of every job over many objects begins with, and the one way to count it up."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Amounts:
    total: int = 0
    total_bytes: int = 0
    """What is before the job; 0 bytes: it counts objects only."""
    done: int = 0
    done_bytes: int = 0

    def plus(self, **more: int) -> Self:
        """Count up by `more`, and nothing down: what was planned may have become less since."""
        return replace(self, **{name: getattr(self, name) + max(0, count) for name, count in more.items()})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
