"""The habits that a tool can check and ruff does not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.rooms import PYPROJECT, ROOMS, ROOT

SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
FORBIDDEN = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base_service"}


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) > 60


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_is_small_and_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    assert path.stem not in FORBIDDEN
    tree = ast.parse(text)
    if tree.body:
        assert ast.get_docstring(tree), "a module says what it guarantees"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


def test_every_folder_of_ours_is_installed() -> None:
    ours = {
        ".".join(path.relative_to(ROOT).parts) for room in ROOMS for path in (ROOT / room).rglob("*") if _code(path)
    }
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == ours | set(ROOMS)


def _code(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*.py"))


def test_the_alembic_folder_does_not_shadow_the_library() -> None:
    assert not (ROOT / "alembic" / "__init__.py").exists()


def test_the_lock_names_no_index() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        assert "://" not in path.read_text()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_hosts_clock_is_read_in_one_place(path: Path) -> None:
    """Check that only core/clock.py reads it: nothing may rest on it, so each use of that file is looked at. The
    client has a clock of its own."""
    if path.relative_to(ROOT) in (Path("core/clock.py"), Path("millrace_client/http.py")):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in {"datetime.now", "datetime.utcnow", "time.time", "time.time_ns"}
