"""What a kind of store is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from storage.interface import ObjectStore
from storage.options import StoreOptions

Options = TypeVar("Options", bound=StoreOptions)


@dataclass(frozen=True)
class Backend(Generic[Options]):
    options: type[Options]
    open: Callable[[str, Options], ObjectStore]
    """Touches neither disk nor network: a store that is down must not keep a process from starting."""
    own: Callable[[str, Options], ObjectStore] | None = None
    """Where one process owns the store: how that one opens it, and `open` is for the others, which only read."""
