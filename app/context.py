"""What a request handler reaches for: what the process has, and the request as it came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qsl, unquote

from flask import current_app, request

from app.health import Health
from app.waiting_places import WaitingPlaces
from core.errors import BadPath, BadRequest
from pipeline.services import Services
from pipeline.variants.waiting import VariantWaits

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

EXTENSION = "millrace"
MAX_PARAMETERS = 200


@dataclass(frozen=True)
class Context:
    services: Services
    waiting_places: WaitingPlaces
    waits: VariantWaits
    health: Health


def context() -> Context:
    return cast("Context", current_app.extensions[EXTENSION])


def services() -> Services:
    return context().services


def waiting_places() -> WaitingPlaces:
    return context().waiting_places


def waits() -> VariantWaits:
    return context().waits


def raw_path() -> str:
    return raw_path_of(request.environ)


def raw_path_of(environ: WSGIEnvironment) -> str:
    """What follows `/assets` in the request line, percent-encoded as the client sent it: only there is an encoded
    slash still one.

    Raises:
        BadPath: it was understood as an address below `/assets` only because slashes were forgiven or decoded.
    """
    target: str = environ["RAW_URI"]
    if not target.startswith("/"):  # absolute form, RFC 9112 §3.2.2
        target = "/" + target.partition("://")[2].partition("/")[2]
    root, slash, rest = target.partition("?")[0].partition("#")[0][1:].partition("/")
    if unquote(root) != "assets":
        raise BadPath("an asset's address begins with /assets/, without a double or an encoded slash")
    return slash + rest


def parameters(environ: WSGIEnvironment) -> list[tuple[str, str]]:
    """The query, in order.

    Raises:
        BadRequest: it is not UTF-8, or there are too many.
    """
    query = environ.get("QUERY_STRING", "")
    if not query:
        return []
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError:
        raise BadRequest("the query is not UTF-8") from None
    except ValueError:
        raise BadRequest(f"the query has more than {MAX_PARAMETERS} parameters") from None


def known_parameters(*names: str) -> dict[str, str]:
    """The query of a request that knows `names` only, each at most once.

    Raises:
        BadRequest: naming the parameter.
    """
    found: dict[str, str] = {}
    for name, value in parameters(request.environ):
        if name not in names:
            raise BadRequest(f"unknown query parameter: {name}")
        if name in found:
            raise BadRequest(f"given more than once: {name}")
        found[name] = value
    return found
