"""Every pair of settings that can contradict each other is refused with both names and what would be right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.config import config
from core import settings
from core.contradictions import PAIRS, Pair, found
from core.errors import Misconfigured
from core.settings import Settings


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MILLRACE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))


def variable(name: str) -> str:
    return f"MILLRACE_{name.replace('.', '__').upper()}"


def value(name: str) -> int:
    section, _, key = name.partition(".")
    return int(getattr(getattr(Settings(), section), key))


def test_the_defaults_do_not_contradict_each_other() -> None:
    assert list(found(settings.load())) == []


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.low} {pair.relation} {pair.high}")
def test_a_contradiction_is_refused_whichever_side_was_set(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        with pytest.raises(Misconfigured) as caught:
            settings.load()
        [line] = [line for line in caught.value.detail.splitlines() if pair.low in line and pair.high in line]
        assert f"{pair.low} must be {pair.relation} {pair.high}" in line
        assert isinstance(CliRunner().invoke(config).exception, Misconfigured)

    monkeypatch.setenv(variable(pair.low), str(value(pair.high) + 1))
    refused()
    monkeypatch.delenv(variable(pair.low))
    monkeypatch.setenv(variable(pair.high), str(value(pair.low) / 2 if "bytes" not in pair.low else 1))
    refused()


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.low} {pair.relation} {pair.high}")
def test_equal_values_are_right_where_they_may_be(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(pair.low), str(value(pair.high)))
    said = "\n".join(found(Settings()))
    assert (f"{pair.low} must be" in said) == (pair.relation == "below")


@pytest.mark.parametrize("section", ["placement", "demotion"])
def test_a_rule_that_nothing_fits_is_refused(section: str, tmp_path: Path) -> None:
    names = 'store = "main"' if section == "placement" else 'from = "main"\nto = "main"'
    rule = f"[[{section}]]\n{names}\nmin_bytes = 10\nmax_bytes = 9\n"
    (tmp_path / "millrace.toml").write_text(rule)
    with pytest.raises(Misconfigured, match="min_bytes = 10 and max_bytes = 9 contradict each other"):
        settings.load()


@pytest.mark.parametrize("given", ["100000", "-1", "nan", "inf"])
def test_nobody_waits_for_a_variant_for_days(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_VARIANTS__WAIT_SECONDS", given)
    with pytest.raises(Misconfigured, match=r"variants\.wait_seconds"):
        settings.load()
