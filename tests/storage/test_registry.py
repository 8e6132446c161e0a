"""From the settings to the stores: what is refused, by which name, and what is never shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import Misconfigured
from core.sections import Staging
from core.settings import Settings
from storage.filesystem.store import FilesystemStore
from storage.memory import MemoryStore
from storage.registry import BACKENDS, describe, open_stores
from storage.s3.store import S3Store

PLACEMENT = {
    "tier": "warm",
    "priority": 0,
    "state": "active",
    "price_per_gib_month": None,
    "promote_up_to": None,
    "promote_max_bytes": None,
}
"""What every store has by default."""

S3 = {"kind": "s3", "bucket": "pictures", "region": "eu-central-1"}


def settings(staging: Staging | None = None, **stores: dict[str, Any]) -> Settings:
    return Settings(stores=stores, staging=staging or Staging(), default_store=next(iter(stores), "main"))


def refusal(given: Settings) -> str:
    with pytest.raises(Misconfigured) as caught:
        open_stores(given)
    return caught.value.detail


def test_every_kind_opens_by_its_name(tmp_path: Path) -> None:
    files = {"kind": "filesystem", "root": str(tmp_path / "store")}
    stores = open_stores(settings(main=files, cloud=S3, fast={"kind": "memory"}), single_process=True)
    assert {name: type(store) for name, store in stores.items()} == {
        "main": FilesystemStore,
        "cloud": S3Store,
        "fast": MemoryStore,
    }
    assert [store.name for store in stores.values()] == ["main", "cloud", "fast"]
    assert not (tmp_path / "store").exists()


def test_without_stores_there_is_one_below_the_home(tmp_path: Path) -> None:
    given = Settings(home=tmp_path)
    assert set(open_stores(given)) == {"main"}
    assert describe(given)["main"] == {
        "kind": "filesystem",
        "root": str(tmp_path / "store"),
        "sync_to_disk": True,
        "min_free_bytes": 128 << 20,
        "high_water_percent": 100,
        **PLACEMENT,
    }


def test_unknown_keys_are_refused_by_name(tmp_path: Path) -> None:
    given = settings(main={"kind": "filesystem", "root": str(tmp_path), "sync_to_disc": True})
    assert refusal(given) == "stores.main.sync_to_disc: unknown key"


def test_every_fault_has_its_line() -> None:
    detail = refusal(settings(a={"kind": "filesystem"}, b={"kind": "tape"}, c={}, d={"kind": "memory", "size": 1}))
    known = ", ".join(sorted(BACKENDS))
    assert detail.splitlines() == [
        "stores.a.root: Field required",
        f"stores.b.kind: no backend is called 'tape' (there is: {known})",
        f"stores.c.kind: missing (there is: {known})",
        "stores.d.size: unknown key",
    ]


def test_memory_is_for_one_process() -> None:
    assert refusal(settings(main={"kind": "memory"})).startswith("stores.main.kind: a memory store")
    assert open_stores(settings(main={"kind": "memory"}), single_process=True)


@pytest.mark.parametrize(
    ("staging", "allowed"),
    [
        (Staging(sync="full"), False),
        (Staging(sync="data"), False),
        (Staging(sync="none"), True),
        (Staging(sync="full", ephemeral=True), True),
    ],
)
def test_a_store_is_not_weaker_than_staging(tmp_path: Path, staging: Staging, allowed: bool) -> None:
    given = settings(staging, main={"kind": "filesystem", "root": str(tmp_path), "sync_to_disk": False})
    if allowed:
        assert open_stores(given)
    else:
        assert "weaker than staging.sync" in refusal(given)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"region": None}, "stores.s3: region is needed where there is no endpoint_url"),
        ({"access_key_id": "key"}, "stores.s3: access_key_id and secret_access_key come together or not at all"),
        ({"secret_access_key": "hush"}, "stores.s3: access_key_id and secret_access_key come together or not at all"),
        ({"key_prefix": "../up"}, "stores.s3.key_prefix: segments of letters"),
        ({"key_prefix": "a/millrace-doctor"}, "stores.s3.key_prefix: millrace-doctor/ is where"),
        ({"multipart_part_size": "4MiB"}, "stores.s3.multipart_part_size: "),
        ({"multipart_jobs": 0}, "stores.s3.multipart_jobs: "),
        ({"addressing_style": "house"}, "stores.s3.addressing_style: "),
        ({"endpoint_url": "example.org"}, "stores.s3.endpoint_url: "),
    ],
)
def test_s3_options_that_cannot_work(more: dict[str, Any], line: str) -> None:
    detail = refusal(settings(s3=S3 | more))
    assert detail.startswith(line)
    assert "hush" not in detail


def test_secrets_are_never_shown() -> None:
    given = settings(s3=S3 | {"access_key_id": "key", "secret_access_key": "hush"})
    shown = describe(given)["s3"]
    assert shown["secret_access_key"] == "**********"
    assert shown["multipart_jobs"] == 4
    assert "hush" not in str(shown)
    assert "hush" not in repr(open_stores(given))


def test_describe_does_not_ask_how_the_process_runs() -> None:
    assert describe(settings(main={"kind": "memory"})) == {"main": {"kind": "memory", **PLACEMENT}}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"promote_up_to": "1MiB"}, "promote_up_to: copies for faster reading are made in a store with tier"),
        ({"tier": "cold", "promote_up_to": "1MiB"}, "promote_up_to: copies for faster reading"),
        ({"tier": "hot", "promote_up_to": 0}, "promote_up_to: Input should be greater than 0"),
        ({"tier": "hot", "promote_max_bytes": "1MiB"}, "promote_max_bytes: nothing is copied here without"),
        ({"tier": "hot", "promote_up_to": "1MiB", "promote_max_bytes": "2MiB"}, "promote_max_bytes: larger than"),
    ],
)
def test_promotion_that_cannot_work(tmp_path: Path, options: dict[str, Any], line: str) -> None:
    given = {"kind": "filesystem", "root": str(tmp_path), **options}
    assert refusal(settings(main=given)).startswith(f"stores.main.{line}")
