"""`millrace failures`: what could not be done, and having it tried again or let go."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus
from typing import Any
from uuid import UUID

import click
import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Column, Table

from cli.sanitize import printable
from cli.service_url import service_url
from core.errors import MillraceError
from millrace_client.http import Patience, Refusal, connect

PAGE = 200
PATIENCE_SECONDS = 30


class RequestFailed(MillraceError):
    """The service refused, or cannot answer now."""

    code = "request-failed"


@click.group(invoke_without_command=True)
@click.option("--url", metavar="URL", help="The service. Default: the one that runs in this MILLRACE_HOME.")
@click.option("--limit", type=click.IntRange(min=1), help="Show at most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@click.pass_context
def failures(ctx: click.Context, url: str | None, limit: int | None, as_json: bool) -> None:
    """Show what failed, newest first, with its reason.

    A failed upload's bytes are kept; `retry` has them tried again, `discard` lets them go. The host that holds them
    does it at its next sweep: until then the wish is shown.
    """
    ctx.obj = partial(_open, ctx, url)
    if ctx.invoked_subcommand is not None:
        return
    found = list(ctx.obj().all(limit))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        _print(found)


def _open(ctx: click.Context, url: str | None) -> _Failures:
    """Looks for the service only now: a subcommand's --help needs none."""
    return _Failures(ctx.with_resource(connect(service_url(url))))


def _choice(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments of both wishes: some ids, or --all."""
    command = click.option("--all", "everything", is_flag=True, help="All failures there are now.")(command)
    return click.argument("ids", metavar="ID…", nargs=-1, type=click.UUID)(command)


@failures.command()
@_choice
@click.pass_obj
def retry(connected: Callable[[], _Failures], ids: tuple[UUID, ...], everything: bool) -> None:
    """Have failures tried again."""
    service = connected()
    _carry_out(service, "retry", _chosen(service, ids, everything))


@failures.command()
@_choice
@click.option("--yes", is_flag=True, help="Do not ask before discarding all.")
@click.pass_obj
def discard(connected: Callable[[], _Failures], ids: tuple[UUID, ...], everything: bool, yes: bool) -> None:
    """Let failures go, with the bytes kept for them. There is no way back."""
    service = connected()
    chosen = _chosen(service, ids, everything)
    if everything and chosen and not yes:
        click.confirm(f"Discard {len(chosen)} failures, with the bytes kept for them?", abort=True)
    _carry_out(service, "discard", chosen)


class _Failures:
    """The failures of a service, over its HTTP API."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._patience = Patience(PATIENCE_SECONDS)

    def all(self, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Newest first, page by page."""
        left = sys.maxsize if limit is None else limit
        page: str | None = f"/failures?limit={min(PAGE, left)}"
        while page is not None and left > 0:
            link = page
            answer = self._patience.send(lambda link=link: self._client.get(link))  # type: ignore[misc]  # its default
            if answer.status_code != HTTPStatus.OK:
                raise RequestFailed(Refusal.of(answer).detail)
            said = answer.json()
            yield from said["failures"][:left]
            left -= len(said["failures"])
            page = said["next"]

    def wish(self, what: str, failure_id: str) -> str | None:
        """None when the service took it, else why it did not."""
        if what == "retry":
            answer = self._patience.send(lambda: self._client.post(f"/failures/{failure_id}/retry"))
        else:
            answer = self._patience.send(lambda: self._client.delete(f"/failures/{failure_id}"))
        return None if answer.is_success else Refusal.of(answer).detail


def _chosen(service: _Failures, ids: tuple[UUID, ...], everything: bool) -> list[str]:
    if everything == bool(ids):
        raise click.UsageError("name failures by their ids, or say --all")
    return [one["id"] for one in service.all()] if everything else [str(one) for one in ids]


def _carry_out(service: _Failures, what: str, ids: list[str]) -> None:
    """Wish it for all of them; exits with 1 when the service did not take one."""
    console = Console(stderr=True)
    refused = []
    for failure_id in track(ids, f"{what}…", console=console, disable=not console.is_terminal):
        why = service.wish(what, failure_id)
        if why is not None:
            refused.append((failure_id, why))
    for failure_id, why in refused:
        click.echo(f"{failure_id}: {printable(why)}", err=True)
    click.echo(f"{what}: {len(ids) - len(refused)} of {len(ids)} taken")
    sys.exit(1 if refused else 0)


def _print(found: list[dict[str, Any]]) -> None:
    console = Console()
    if not found:
        console.print("Nothing failed.")
        return
    table = Table(Column("id", no_wrap=True, min_width=36), Column("path", overflow="fold"), "reason", "since", "wish")
    for one in found:
        since = one["failedAt"][:19].replace("T", " ")  # UTC, without the fraction and the zone
        row = (one["id"], one["path"], f"{one['subject']}: {one['failure']['detail']}", since, one["wish"])
        table.add_row(*(escape(printable(text or "")) for text in row))
    console.print(table)
