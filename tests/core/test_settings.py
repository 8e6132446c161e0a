"""Settings: where they come from, which wins, and that nothing unknown passes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from core import settings
from core.errors import Misconfigured


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MILLRACE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))


def test_defaults_are_those_of_the_design() -> None:
    found = settings.load()
    assert found.limits.max_bytes == 2 << 30
    assert (found.limits.max_pixels, found.limits.max_frames) == (100_000_000, 500)
    assert (found.staging.sync, found.staging.high_water_percent) == ("full", 90)
    assert found.profiles == {"thumb": {"w": 400}}
    assert [(rule.match, rule.eager) for rule in found.paths] == [("/**", ("thumb",))]
    assert found.retention.tombstones_days == 365


def test_a_file_is_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "millrace.toml").write_text('[staging]\nsync = "data"\n[limits]\nmax_bytes = "3MiB"\nmax_frames = 7\n')
    monkeypatch.setenv("MILLRACE_LIMITS__MAX_FRAMES", "9")
    found = settings.load()
    assert (found.staging.sync, found.limits.max_bytes, found.limits.max_frames) == ("data", 3 << 20, 9)


def test_a_profile_of_ones_own_leaves_thumb_to_the_default_rule(tmp_path: Path) -> None:
    (tmp_path / "millrace.toml").write_text("[profiles.hero]\nw = 1600\n")
    assert settings.load().profiles == {"thumb": {"w": 400}, "hero": {"w": 1600}}
    (tmp_path / "millrace.toml").write_text("[profiles.thumb]\nw = 100\n")
    assert settings.load().profiles == {"thumb": {"w": 100}}


def test_another_file_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.toml").write_text('default_store = "b"\n[stores.b]\nkind = "filesystem"\nroot = "/srv/b"\n')
    monkeypatch.setenv("MILLRACE_CONFIG", str(tmp_path / "other.toml"))
    assert dict(settings.load().store_options) == {"b": {"kind": "filesystem", "root": "/srv/b"}}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("stagin = 1", "stagin: unknown key"),
        ('[staging]\nsink = "full"', "staging.sink: unknown key"),
        ('[staging]\nsync = "often"', "staging.sync"),
        ("[limits]\nmax_frames = 0\nmax_pixels = -1", "limits.max_frames"),
        ("[work]\nlease_seconds = 'x'", "work.lease_seconds"),
        ("not toml", "millrace.toml"),
        ('default_store = "nowhere"\n[stores.a]\nkind = "filesystem"', "nowhere"),
    ],
)
def test_what_cannot_work_is_refused_by_name(tmp_path: Path, text: str, names: str) -> None:
    (tmp_path / "millrace.toml").write_text(text)
    with pytest.raises(Misconfigured) as caught:
        settings.load()
    assert names in caught.value.detail


@pytest.mark.parametrize(
    "name", ["MILLRACE_STAGIN__SYNC", "MILLRACE_STAGING__SINK", "MILLRACE_STAGING__SYNC__X", "millrace_sync"]
)
def test_an_unknown_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "full")
    with pytest.raises(Misconfigured, match=name):
        settings.load()


def test_a_named_file_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_CONFIG", "/nowhere/millrace.toml")
    with pytest.raises(Misconfigured, match=r"/nowhere/millrace\.toml"):
        settings.load()


def test_a_running_stack_fills_in_what_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "home" / "run"
    run.mkdir(parents=True)
    urls = {"database_url": "postgresql://a/b", "redis_url": "redis://c", "http_url": "http://127.0.0.1:9"}
    (run / "services.json").write_text(json.dumps(urls))
    monkeypatch.setenv("MILLRACE_REDIS_URL", "redis://mine")
    found = settings.load()
    assert found.http_url == "http://127.0.0.1:9"
    assert settings.require_url(found.database_url, "database_url") == "postgresql://a/b"
    assert settings.require_url(found.redis_url, "redis_url") == "redis://mine"


def test_secrets_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_DATABASE_URL", "postgresql://me:hush@127.0.0.1/x")
    found = settings.load()
    assert "hush" not in repr(found) + found.model_dump_json()
    with pytest.raises(Misconfigured, match="redis_url is not set"):
        settings.require_url(found.redis_url, "redis_url")
