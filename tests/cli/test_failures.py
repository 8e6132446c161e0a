"""`millrace failures` against a scripted service that pages."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from cli.failures import failures
from tests.cli.service import Answer, Seen, running

PAGE = 3


@dataclass
class Ledger:
    """Eight failures in pages of three; the last one has gone when it is wished for."""

    wished: list[str] = field(default_factory=list)
    all: list[str] = field(default_factory=lambda: [str(UUID(int=number)) for number in range(8)])

    def __call__(self, seen: Seen) -> Answer:
        parts = urlsplit(seen.target)
        if seen.method == "GET":
            query = parse_qs(parts.query)
            start = int(query.get("after", ["0"])[0])
            until = start + min(PAGE, int(query["limit"][0]))
            following = f"/failures?after={until}&limit={PAGE}" if until < len(self.all) else None
            return 200, {}, {"failures": [self.row(one) for one in self.all[start:until]], "next": following}
        failure_id = parts.path.split("/")[2]
        if failure_id == self.all[-1]:
            return 404, {}, {"detail": "there is no such failure"}
        self.wished.append(f"{seen.method} {parts.path}")
        return (202, {}, {}) if seen.method == "POST" else (204, {}, None)

    def row(self, failure_id: str) -> dict[str, Any]:
        return {
            "id": failure_id,
            "subject": "ingest",
            "path": "/a/b.jpg",
            "failure": {"class": "bad-image", "detail": "[bold]cut\x07"},
            "failedAt": "2026-01-01T00:00:00+00:00",
            "wish": None,
        }


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def run(ledger: Ledger, *arguments: str, confirm: str | None = None) -> Result:
    with running(ledger) as service:
        return CliRunner().invoke(failures, ["--url", service.url, *arguments], input=confirm, env={"COLUMNS": "200"})


def test_lists_every_page(ledger: Ledger) -> None:
    result = run(ledger, "--json")
    assert result.exit_code == 0
    assert [one["id"] for one in json.loads(result.stdout)] == ledger.all


def test_lists_no_more_than_asked_for(ledger: Ledger) -> None:
    assert [one["id"] for one in json.loads(run(ledger, "--json", "--limit", "4").stdout)] == ledger.all[:4]


def test_the_table_shows_text_as_it_is_and_lets_none_of_it_act(ledger: Ledger) -> None:
    shown = run(ledger).stdout
    assert ledger.all[0] in shown
    assert "[bold]cut\\x07" in shown


def test_says_that_there_are_none(ledger: Ledger) -> None:
    ledger.all = []
    assert "Nothing failed" in run(ledger).stdout
    assert run(ledger, "retry", "--all").exit_code == 0


def test_retries_the_named_ones_and_reports_the_one_that_is_gone(ledger: Ledger) -> None:
    result = run(ledger, "retry", ledger.all[1], ledger.all[-1])
    assert result.exit_code == 1
    assert ledger.wished == [f"POST /failures/{ledger.all[1]}/retry"]
    assert "no such failure" in result.stderr
    assert "1 of 2" in result.stdout


def test_discards_all_after_asking(ledger: Ledger) -> None:
    assert run(ledger, "discard", "--all", confirm="n\n").exit_code == 1
    assert ledger.wished == []
    ledger.all[-1:] = []
    ledger.all.append(str(UUID(int=99)))  # the one that has gone
    assert run(ledger, "discard", "--all", confirm="y\n").exit_code == 1
    assert ledger.wished == [f"DELETE /failures/{one}" for one in ledger.all[:-1]]


@pytest.mark.parametrize("arguments", [["retry"], ["retry", "--all", str(UUID(int=1))], ["discard", "not-an-id"]])
def test_wants_either_ids_or_all(ledger: Ledger, arguments: list[str]) -> None:
    assert run(ledger, *arguments).exit_code == 2
    assert ledger.wished == []


def test_help_needs_no_service(tmp_path: Path) -> None:
    result = CliRunner().invoke(failures, ["retry", "--help"], env={"MILLRACE_HOME": str(tmp_path)})
    assert result.exit_code == 0
    assert "tried again" in result.stdout


def test_says_so_where_no_service_runs(tmp_path: Path) -> None:
    result = CliRunner().invoke(failures, [], env={"MILLRACE_HOME": str(tmp_path), "MILLRACE_HTTP_URL": None})
    assert "millrace up" in str(result.exception)
