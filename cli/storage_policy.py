"""`millrace storage policy`: moving bytes to colder stores as the settings say, and what that would save."""

from __future__ import annotations

import json
from functools import partial

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from cli import job_progress, survey
from cli.sanitize import printable
from core import settings
from pipeline.jobs import demotion, registry, savings
from pipeline.services import build


@click.command(name="policy")
@click.option("--max-mb-s", type=click.FloatRange(0, min_open=True), metavar="N", help="At most so many MB a second.")
@click.option("--dry-run", is_flag=True, help="Say what would move and what that saves, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the job, or what would move, as JSON.")
def command(max_mb_s: float | None, dry_run: bool, as_json: bool) -> None:
    """Move bytes to colder stores as the [[demotion]] rules say, while everything runs.

    The workers do so by themselves, every work.policy_seconds. Ctrl-C pauses; the same command goes on, also after this
    process was killed. Exits with 1 when something could not be moved.
    """
    services = build(settings.load())
    try:
        if dry_run:
            _print(survey.shown(partial(savings.survey, services)), as_json)
            return
        job = job_progress.follow(services, registry.create(services, demotion.KIND, {"max_mb_s": max_mb_s}))
    finally:
        services.close()
    job_progress.end(job, as_json=as_json)


def _print(found: savings.Survey, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_to_json(found), ensure_ascii=False))
    elif not found.rules:
        click.echo("The settings have no [[demotion]] rules.")
    else:
        console = Console()
        console.print(_moves(found))
        console.print(_stores(found))
        if found.saved_per_month is not None:
            console.print(f"This saves {found.saved_per_month:,.2f} a month.")


def _to_json(found: savings.Survey) -> dict[str, object]:
    rules = [
        {"rule": one.rule, "from": one.source, "to": one.target, "objects": one.objects, "bytes": one.bytes}
        for one in found.rules
    ]
    stores = {
        name: {
            "bytes": one.bytes,
            "bytesAfter": one.bytes_after,
            "perMonth": one.per_month,
            "perMonthAfter": one.per_month_after,
        }
        for name, one in found.stores.items()
    }
    return {"dryRun": True, "rules": rules, "stores": stores, "savedPerMonth": found.saved_per_month}


def _moves(found: savings.Survey) -> Table:
    table = Table("rule", "from", "to", *_numbers("objects", "MB"), title="would move", title_justify="left")
    for one in found.rules:
        names = (escape(printable(name)) for name in (one.source, one.target))
        table.add_row(str(one.rule), *names, f"{one.objects:,}", _mb(one.bytes))
    return table


def _stores(found: savings.Survey) -> Table:
    table = Table("store", *_numbers("MB now", "MB after", "MB freed", "a month", "a month after"))
    for name, one in found.stores.items():
        sizes = _mb(one.bytes), _mb(one.bytes_after), _mb(one.bytes - one.bytes_after)
        table.add_row(escape(printable(name)), *sizes, _money(one.per_month), _money(one.per_month_after))
    return table


def _numbers(*names: str) -> list[Column]:
    return [Column(name, justify="right") for name in names]


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f}"


def _money(amount: float | None) -> str:
    return "" if amount is None else f"{amount:,.2f}"
