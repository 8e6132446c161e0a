"""Which file of a filesystem store holds which key, and the walk over those files in key order.

`ab12….7` lies in `ab/12/ab12….7`: two levels of two characters, so that no directory grows beyond what file systems
like, then the whole key. In names `/` is written `,` and a leading `.` is written `+`, so no name is `.` or `..` and a
key can be a prefix of another one; neither sign occurs in keys. A short key's levels are filled up with `=`, and a key
longer than a file name may be goes on in a directory whose name ends in `=`.

Order: the levels of a directory's keys sort as the keys do, and of two names that read the same, the file (the key that
ends there) comes before the directory (the keys that go on). So a walk sorts one directory at a time and holds no more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from stat import S_ISDIR, S_ISREG

from storage.object_keys import is_legal

LEVEL = 2
LEVELS = 2
CHUNK = 200
"""Below every file system's limit for a name."""

FILL = "="


def parts(key: str) -> tuple[str, ...]:
    """Directories, then the file's name."""
    if LEVEL * LEVELS <= len(key) <= CHUNK and "/" not in key and key[0] != "." != key[LEVEL]:
        return key[:LEVEL], key[LEVEL : 2 * LEVEL], key  # as all that Millrace makes; what follows comes to the same
    levels = [_encode(key[start : start + LEVEL]).ljust(LEVEL, FILL) for start in range(0, LEVEL * LEVELS, LEVEL)]
    chunks = [_encode(key[start : start + CHUNK]) for start in range(0, len(key), CHUNK)]
    return (*levels, *(chunk + FILL for chunk in chunks[:-1]), chunks[-1])


@dataclass(frozen=True, slots=True)
class Found:
    key: str
    status: os.stat_result


def walk(open_directory: Callable[[tuple[str, ...]], int | None], prefix: str, after: str) -> Iterator[Found]:
    """Objects under the directory `open_directory(())`, in key order, lazily.

    `open_directory` returns a descriptor, or None where a directory is gone; the walk closes it. What is no object
    (links, foreign names, other kinds of files) does not show.
    """
    yield from _walk(open_directory, (), prefix, after)


def _walk(
    open_directory: Callable[[tuple[str, ...]], int | None], above: tuple[str, ...], prefix: str, after: str
) -> Iterator[Found]:
    directory = open_directory(above)
    if directory is None:
        return
    try:
        names = sorted(os.listdir(directory), key=_order)
        for name in names:
            text = _reach((*above, name))
            if not _may_hold(text, prefix, after):
                continue
            status = _status(name, directory)
            if status is None:
                continue
            if S_ISDIR(status.st_mode):
                yield from _walk(open_directory, (*above, name), prefix, after)
            elif S_ISREG(status.st_mode) and _is_object((*above, name), text, prefix, after):
                yield Found(text, status)
    finally:
        os.close(directory)


def _status(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None  # deleted since it was listed


def _order(name: str) -> tuple[str, bool]:
    return _decode(name), len(name) > CHUNK


def _reach(path: tuple[str, ...]) -> str:
    """What every key below the path begins with; for a file, its key."""
    if len(path) <= LEVELS:
        return "".join(map(_decode, path))
    return "".join(map(_decode, path[LEVELS:]))


def _may_hold(text: str, prefix: str, after: str) -> bool:
    """Whether a key that begins with `text` can begin with `prefix` and sort after `after`."""
    return (text.startswith(prefix) or prefix.startswith(text)) and text >= after[: len(text)]


def _is_object(path: tuple[str, ...], key: str, prefix: str, after: str) -> bool:
    return key.startswith(prefix) and key > after and is_legal(key) and parts(key) == path


def _encode(text: str) -> str:
    named = text.replace("/", ",")
    return "+" + named[1:] if named.startswith(".") else named


def _decode(name: str) -> str:
    text = name.rstrip(FILL).replace(",", "/")
    return "." + text[1:] if text.startswith("+") else text
