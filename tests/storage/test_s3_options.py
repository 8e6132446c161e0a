"""What the settings of an S3 store refuse, and what naming a provider sets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from core.errors import Misconfigured
from core.settings import Settings
from storage.registry import open_stores
from storage.s3.options import PRESETS, Provider, S3Options
from storage.s3.store import S3Store

BASE: dict[str, Any] = {"bucket": "pictures", "access_key_id": "key", "secret_access_key": "secret"}
THERE = BASE | {"endpoint_url": "https://s3.example.org"}


def options(**given: Any) -> S3Options:
    return S3Options.model_validate(given)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("provider", "gopher"),
        ("multipart_part_size", "4MiB"),
        ("multipart_part_size", "6GiB"),
        ("multipart_threshold", "4MiB"),
        ("multipart_threshold", "6GiB"),
        ("multipart_jobs", 0),
        ("multipart_copy_threshold", "6GiB"),
        ("multipart_copy_chunk_size", "4MiB"),
        ("multipart_copy_jobs", 0),
        ("multipart_upload_timeout", 0),
        ("max_attempts", 0),
        ("attempt_timeout", 0),
        ("operation_timeout", 0),
        ("breaker_failures", 0),
        ("breaker_seconds", 0),
        ("storage_class", "GLACIER_FLEXIBLE"),
        ("storage_class", "standard"),
        ("checksum", "crc32"),
        ("verify", "hope"),
        ("conditional_writes", "on"),
    ],
)
def test_what_cannot_work_is_refused_when_settings_load(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        options(**THERE, **{key: value})


def test_a_bad_part_size_is_one_fault() -> None:
    """Though the default of the threshold is made of it."""
    with pytest.raises(Misconfigured) as caught:
        open_stores(Settings(stores={"main": {"kind": "s3", **THERE, "multipart_part_size": "4MiB"}}))
    assert caught.value.detail.count("\n") == 0


def test_the_defaults_of_the_parts() -> None:
    given = options(**THERE)
    assert given.multipart_part_size == given.multipart_threshold == 50 << 20
    assert options(**THERE, multipart_part_size="8MiB").multipart_threshold == 8 << 20
    assert given.multipart_copy_threshold == 5 * 10**9
    assert given.multipart_copy_chunk_size == 100 * 10**6
    assert given.multipart_copy_jobs == 4
    assert given.multipart_upload_timeout == 86_400


def test_every_provider_has_a_preset() -> None:
    assert set(PRESETS) == set(get_args(Provider))


@pytest.mark.parametrize("provider", PRESETS)
def test_a_preset_sets_its_keys_and_nothing_else(provider: str) -> None:
    plain, preset = options(**THERE).model_dump(), options(**THERE, provider=provider).model_dump()
    changed = {key: value for key, value in preset.items() if plain[key] != value}
    assert changed == {"provider": provider, **PRESETS[provider]}


@pytest.mark.parametrize(
    ("provider", "given"),
    [
        ("aws", {"addressing_style": "path"}),
        ("r2", {"region": "weur", "uniform_parts": False}),
        ("b2", {"conditional_writes": "auto", "checksum": "sha256"}),
        ("spaces", {"conditional_writes": "auto"}),
        ("minio", {"addressing_style": "virtual", "region": "home"}),
    ],
)
def test_a_key_that_is_given_wins(provider: str, given: dict[str, Any]) -> None:
    preset = options(**THERE, provider=provider, **given).model_dump()
    assert {key: preset[key] for key in given} == given


@pytest.mark.parametrize("provider", ["r2", "b2", "spaces", "minio"])
def test_all_but_aws_need_an_endpoint(provider: str) -> None:
    with pytest.raises(ValidationError, match="endpoint_url is needed"):
        options(**BASE, provider=provider, region="eu-central-1")
    assert options(**BASE, provider="aws", region="eu-central-1").endpoint_url is None


@pytest.mark.parametrize(
    ("given", "begins", "region"),
    [
        ({**BASE, "provider": "aws", "region": "eu-west-3"}, "https://pictures.s3.", "eu-west-3"),
        ({**THERE, "provider": "r2"}, "https://s3.example.org/pictures/a?", "auto"),
        ({**THERE, "provider": "minio"}, "https://s3.example.org/pictures/a?", "us-east-1"),
        ({**THERE, "addressing_style": "virtual"}, "https://pictures.s3.example.org/a?", "us-east-1"),
    ],
)
def test_where_a_store_is_asked(given: dict[str, Any], begins: str, region: str) -> None:
    store = S3Store("main", options(**given))
    link = str(store.url("a", ttl=timedelta(minutes=1)))
    assert link.startswith(begins)
    assert f"%2F{region}%2Fs3%2F" in link
    store.close()
