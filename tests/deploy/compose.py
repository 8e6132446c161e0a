"""docker-compose.yml and the Dockerfile as the tests read them: parsed, with variables filled in as Compose does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]

SECRETS = {
    "POSTGRES_PASSWORD": "postgres0secret",
    "VALKEY_PASSWORD": "valkey0secret",
    "S3_ACCESS_KEY_ID": "access0key",
    "S3_SECRET_ACCESS_KEY": "secret0key",
}
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<operator>:-|:\?)?(?P<word>[^}]*)\}|\$\$")


class MissingVariable(Exception):
    """Compose refuses to start: `${NAME:?…}` without a value."""


def text() -> str:
    return (ROOT / "docker-compose.yml").read_text(encoding="utf-8")


def parsed(variables: Mapping[str, str]) -> dict[str, Any]:
    """Every `${…}` filled in: Compose interpolates values, after parsing."""
    found: dict[str, Any] = _interpolate(yaml.safe_load(text()), variables)
    return found


def _interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _interpolate(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [_interpolate(inner, variables) for inner in value]
    return _VARIABLE.sub(lambda found: _value(found, variables), value) if isinstance(value, str) else value


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    if found[0] == "$$":
        return "$"
    value = variables.get(found["name"], "")
    if value or found["operator"] is None:
        return value
    if found["operator"] == ":?":
        raise MissingVariable(found["name"])
    return found["word"]


def mounts(service: Mapping[str, Any]) -> dict[str, str]:
    """Where it mounts what: target → source."""
    found = {}
    for volume in service.get("volumes", ()):
        source, target, *_ = volume.split(":")
        found[target] = source
    return found


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions, in order."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    return [
        (word, rest) for line in lines if line and not line.startswith("#") for word, _, rest in [line.partition(" ")]
    ]


def last_stage() -> list[tuple[str, str]]:
    instructions = dockerfile()
    start = max(position for position, (word, _) in enumerate(instructions) if word == "FROM")
    return instructions[start:]


def argv(instruction: str, stage: list[tuple[str, str]]) -> list[list[str]]:
    """The exec forms of an instruction; the shell form would be a fault."""
    return [json.loads(rest) for word, rest in stage if word == instruction]


def image_environment() -> dict[str, str]:
    pairs = (pair for word, rest in last_stage() if word == "ENV" for pair in rest.split())
    return dict(pair.split("=", 1) for pair in pairs)
