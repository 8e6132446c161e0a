"""`millrace config`: the settings in effect, whatever they came from, with secrets masked."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click
from pydantic import SecretStr

from core import settings

_MASK = "********"
_SECRET_NAME = re.compile(r"secret|password|token|credential|access_key|private", re.IGNORECASE)


@click.command()
def config() -> None:
    """Print the effective settings as JSON, secrets masked."""
    from pipeline.rules.demotion import Demotions
    from pipeline.rules.placement import Placements
    from pipeline.rules.profiles import Profiles
    from storage import registry

    effective = settings.load()
    Profiles.parse(effective)  # whoever asks whether the settings are good gets the whole answer
    Demotions.parse(effective, Placements.parse(effective, registry.options_of(effective)))
    shown = effective.model_dump(by_alias=True) | {
        "home": effective.home,
        "stores": registry.describe(effective),
    }
    shown["staging"]["path"] = effective.staging_path
    shown["variants"]["cache"] = effective.cache_path
    click.echo(json.dumps(masked(shown), indent=2, default=str, ensure_ascii=False))


def masked(value: Any, name: str = "") -> Any:
    """The same structure with nothing in it that opens anything: a URL keeps all but its password."""
    if isinstance(value, dict):
        return {key: masked(inner, key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner, name) for inner in value]
    if isinstance(value, SecretStr):
        return without_password(value.get_secret_value())
    if value is not None and _SECRET_NAME.search(name):
        return _MASK
    return without_password(value) if isinstance(value, str) and "://" in value else value


def without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
        user = parts.username or ""
        secret = parts.password is not None
    except ValueError:
        return _MASK
    if not parts.scheme or "password" in parts.query:
        return _MASK
    if not secret:
        return url
    return urlunsplit(parts._replace(netloc=f"{user}:{_MASK}@{parts.netloc.rpartition('@')[2]}"))
