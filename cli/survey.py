"""A look at everything before it is changed, as `--dry-run` takes it: how far it has come shows on a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cli.interruption import interruptible

Found = TypeVar("Found")


def shown(look: Callable[[Callable[[int], None]], Found]) -> Found:
    """Do it. `look` says now and then how many objects it has looked at."""
    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.completed:,} objects looked at"), TimeElapsedColumn()
    with interruptible(), Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        task = bars.add_task("", total=None)
        return look(lambda looked_at: bars.update(task, completed=looked_at))
