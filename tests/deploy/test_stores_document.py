"""docs/stores.md: every example loads, and every key of every store, of locks and of the cache is explained."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from core import sections, settings
from storage import registry

DOCUMENT = Path(__file__).parents[2] / "docs" / "stores.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
EXPLAINED = {
    word for row in re.findall(r"^\| (`.*?) \|", TEXT, re.MULTILINE) for word in re.findall(r"`([\w.]+)`", row)
}


def section(name: str) -> str:
    return TEXT.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_loads(example: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text(example)
    monkeypatch.setenv("MILLRACE_CONFIG", str(file))
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    loaded = settings.load()
    given = tomllib.loads(example)
    described = registry.describe(loaded)
    for name, options in given.get("stores", {}).items():
        assert described[name]["kind"] == options["kind"]
        assert set(options) <= set(described[name])


def test_there_is_an_example_for_every_kind() -> None:
    shown = {store["kind"] for example in EXAMPLES for store in tomllib.loads(example).get("stores", {}).values()}
    assert shown == set(registry.BACKENDS)


@pytest.mark.parametrize("kind", sorted(registry.BACKENDS))
def test_every_key_of_a_store_is_explained(kind: str) -> None:
    fields = registry.backend_of(kind).options.model_fields
    keys = {field.alias or name for name, field in fields.items()} - {"kind"}
    rows = re.findall(r"^\| (`[^|]*) \|", section("Several stores") + section(kind), re.MULTILINE)
    assert keys - {word for row in rows for word in re.findall(r"`(\w+)`", row)} == set()


def test_every_key_of_a_placement_is_explained() -> None:
    rows = re.findall(r"^\| (`[^|]*) \|", section("Several stores"), re.MULTILINE)
    assert set(sections.Placement.model_fields) <= {word for row in rows for word in re.findall(r"`(\w+)`", row)}


def test_every_key_of_a_demotion_is_explained() -> None:
    rows = re.findall(r"^\| (`[^|]*) \|", section("Tiered"), re.MULTILINE)
    keys = {field.alias or name for name, field in sections.Demotion.model_fields.items()}
    assert keys <= {word for row in rows for word in re.findall(r"`(\w+)`", row)}


def test_every_key_of_locks_and_cache_is_explained() -> None:
    keys = {f"locks.{name}" for name in sections.Locks.model_fields} | {
        f"cache.{name}" for name in sections.Cache.model_fields
    }
    assert keys <= EXPLAINED


def test_links_within_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", TEXT):
        assert (DOCUMENT.parent / target).exists(), target
