"""`millrace doctor`: examine everything that Millrace depends on, and say in plain words what is wrong.

Exit code 0: nothing is wrong; 1: something is. Works beside a running `millrace up` with the same MILLRACE_HOME.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import NoReturn

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from cli.sanitize import printable
from core import settings
from core.findings import Finding, Grade
from pipeline.doctor.examine import Examination, examine

_MARKS = {Grade.OK: "[green]ok[/]", Grade.NOTE: "[yellow]note[/]", Grade.PROBLEM: "[bold red]problem[/]"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def doctor(as_json: bool) -> None:
    """Examine stores, PostgreSQL, Redis and staging.

    Writes a few small objects into each store and removes them again. Exits with 1 when something is wrong.
    """
    effective = settings.load()
    progress = Console(stderr=True)
    with progress.status("examining…") as status:
        done = examine(effective, lambda name, finding: status.update(escape(f"{name}: {finding.check}")))
    if as_json:
        click.echo(json.dumps(_as_json(done), ensure_ascii=False))
    else:
        _print(done)
    _leave(0 if done.healthy else 1, done.hanging)


def _as_json(done: Examination) -> dict[str, object]:
    return {
        "healthy": done.healthy,
        "findings": {name: [asdict(finding) for finding in found] for name, found in done.findings.items()},
        "advice": done.advice,
    }


def _print(done: Examination) -> None:
    console = Console()
    table = Table(Column("what", no_wrap=True), Column("check", no_wrap=True), Column("", no_wrap=True), "found")
    for name, found in done.findings.items():
        for position, finding in enumerate(found):
            table.add_row("" if position else escape(name), finding.check, _MARKS[finding.grade], _text(finding))
        table.add_section()
    console.print(table)
    for sentence in done.advice:
        console.print(f"• {escape(printable(sentence))}", highlight=False)
    problems = sum(one.grade is Grade.PROBLEM for found in done.findings.values() for one in found)
    console.print("Nothing is wrong." if done.healthy else f"{problems} problem{'s' if problems > 1 else ''} found.")


def _text(finding: Finding) -> str:
    said = escape(printable(finding.detail))
    return said if finding.advice is None else f"{said}\n[bold]→[/] {escape(printable(finding.advice))}"


def _leave(code: int, hanging: bool) -> NoReturn:
    """A thread that hangs in a client library would keep the interpreter from ending."""
    if hanging:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
