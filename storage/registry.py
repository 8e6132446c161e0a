"""From `[stores.NAME]` in the settings to the stores themselves.

A new backend is a file with a `BACKEND`, and one line in `BACKENDS`. A process loads what the kinds need that its
settings name, and no more: one SDK is a fifth of its start and of its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from pydantic import ValidationError

from core.errors import Misconfigured
from core.settings import Settings
from storage.backend import Backend
from storage.interface import ObjectStore
from storage.options import Deployment, StoreOptions

BACKENDS: Final[Mapping[str, str]] = {
    "filesystem": "storage.filesystem.store",
    "memory": "storage.memory",
    "postgres": "storage.postgres.store",
    "rocksdb": "storage.rocksdb.store",
    "s3": "storage.s3.store",
}
"""Kind → the module that holds its `BACKEND`."""


def backend_of(kind: str) -> Backend[Any]:
    """Load what this kind needs.

    Raises:
        KeyError: there is no such kind.
    """
    backend: Backend[Any] = import_module(BACKENDS[kind]).BACKEND
    return backend


def open_stores(settings: Settings, *, single_process: bool = False, owner: bool = False) -> dict[str, ObjectStore]:
    """Every configured store by its name. `owner`: this process is the one that writes to stores with one owner.

    Raises:
        Misconfigured: one line for each fault, naming the key.
    """
    deployment = Deployment(settings.staging, single_process, settings.database_url)
    checked = _checked(settings, deployment)
    owner = owner or single_process
    return {
        name: _opening(backend_of(options.kind), owner)(name, options.completed(deployment))
        for name, options in checked.items()
    }


def with_one_owner(settings: Settings) -> list[str]:
    """The stores that one process owns, by name."""
    return [name for name, options in options_of(settings).items() if options.one_owner]


def options_of(settings: Settings) -> dict[str, StoreOptions]:
    """The options of every store by its name.

    Raises:
        Misconfigured: as `open_stores`, but for what depends on how this process is run.
    """
    return _checked(settings, None)


def describe(settings: Settings) -> dict[str, dict[str, Any]]:
    """The effective options of every store, defaults filled in and secrets masked.

    Raises:
        Misconfigured: as `open_stores`, but for what depends on how this process is run.
    """
    return {name: options.model_dump(mode="json") for name, options in options_of(settings).items()}


def _opening(backend: Backend[Any], owner: bool) -> Callable[[str, Any], ObjectStore]:
    return backend.own if owner and backend.own else backend.open


def _checked(settings: Settings, deployment: Deployment | None) -> dict[str, StoreOptions]:
    checked: dict[str, StoreOptions] = {}
    faults: list[str] = []
    for name, given in settings.store_options.items():
        try:
            checked[name] = _read(name, given)
        except Misconfigured as fault:
            faults.append(fault.detail)
            continue
        if deployment and (objection := checked[name].objection(deployment)):
            faults.append(f"stores.{name}.{objection}")
    if faults:
        raise Misconfigured("\n".join(faults))
    return checked


def _read(name: str, given: Mapping[str, Any]) -> StoreOptions:
    known = ", ".join(sorted(BACKENDS))
    kind = given.get("kind")
    if kind is None:
        raise Misconfigured(f"stores.{name}.kind: missing (there is: {known})")
    if not isinstance(kind, str) or kind not in BACKENDS:
        raise Misconfigured(f"stores.{name}.kind: no backend is called {kind!r} (there is: {known})")
    try:
        options: StoreOptions = backend_of(kind).options.model_validate(dict(given))
    except ValidationError as error:
        raise Misconfigured(_lines(name, error)) from None
    return options


def _lines(name: str, error: ValidationError) -> str:
    lines = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        if fault["type"] == "default_factory_not_called":
            continue  # its default is made of another key, which has a line of its own
        key = ".".join(["stores", name, *(str(part) for part in fault["loc"])])
        message = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
        lines.append(f"{key}: {message}")
    return "\n".join(lines)
