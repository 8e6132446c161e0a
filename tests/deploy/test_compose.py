"""docker-compose.yml: no weak secrets, pinned images, shared volumes where they must be, and all settings known."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import redis

from core import settings
from core.sections import Web
from storage import registry
from supervise.embedded_valkey import find_binary, free_port
from supervise.processes import start, stop
from supervise.python_process import Process
from tests.deploy.compose import (
    ROOT,
    SECRETS,
    MissingVariable,
    dockerfile,
    image_environment,
    last_stage,
    mounts,
    parsed,
    text,
)

SERVICES = parsed(SECRETS)["services"]
OURS = {name for name, service in SERVICES.items() if service["image"].startswith("millrace:")}
ON_THE_HOST = {"web", "ingest", "sweep", "doctor"}
HOME = image_environment()["MILLRACE_HOME"]
"""Who shares the staging directory."""


def test_everything_is_there() -> None:
    assert ON_THE_HOST | {"interactive", "variants", "maintenance", "beat", "migrate"} == OURS
    assert set(SERVICES) == OURS | {"postgres", "valkey", "s3", "s3-setup"}


def test_a_web_server_has_the_time_to_end_that_it_takes() -> None:
    web = Web()
    assert int(SERVICES["web"]["stop_grace_period"].removesuffix("s")) > web.stop_delay_seconds + web.graceful_seconds


def test_listening_to_other_machines_is_said_wherever_it_is_done() -> None:
    image = image_environment()
    assert (image["HOST"], image["MILLRACE_WEB__ALLOW_ANONYMOUS"]) == ("0.0.0.0", "true")
    assert tomllib.loads((ROOT / "deploy" / "millrace.toml").read_text())["web"] == {
        "allow_anonymous": True,
        "hosts": ["web"],
    }
    assert SERVICES["web"]["ports"] == ["127.0.0.1:8080:8080"]
    assert "MILLRACE_WEB__ALLOW_ANONYMOUS" in (ROOT / "Procfile").read_text()


@pytest.mark.parametrize("missing", SECRETS)
def test_no_secret_has_a_default(missing: str) -> None:
    for rest in ({}, {missing: ""}):
        with pytest.raises(MissingVariable, match=missing):
            parsed({name: value for name, value in SECRETS.items() if name != missing} | rest)


def test_no_secret_is_written_down() -> None:
    assert not re.search(r"(?i)(password|secret|key)\w*: *[\"']?(?!\$|\")[a-z0-9]{6,}", text())
    assert "/.env" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    if name in OURS:
        assert SERVICES[name]["build"] == "."
    else:
        assert re.search(r":\d+\.\d+", image), image


def test_the_base_image_is_pinned_and_the_same_in_both_stages() -> None:
    bases = [rest.removesuffix(" AS build") for word, rest in dockerfile() if word == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.1[123]\.\d+-slim-\w+", bases[0])


def test_it_runs_as_nobody_in_particular() -> None:
    (user,) = [rest for word, rest in last_stage() if word == "USER"]
    assert user not in ("root", "0")
    for name in OURS:
        service = SERVICES[name]
        assert "user" not in service
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_one_host_shares_one_staging_directory_and_nobody_else_does() -> None:
    staging = f"{HOME}/staging"
    assert {name for name, service in SERVICES.items() if staging in mounts(service)} == ON_THE_HOST
    assert {mounts(SERVICES[name])[staging] for name in ON_THE_HOST} == {"staging"}


def test_volumes_are_declared_and_writable_places_are_made_in_the_image() -> None:
    document = parsed(SECRETS)
    made = " ".join(rest for word, rest in last_stage() if word == "RUN")
    for service in SERVICES.values():
        for target, source in mounts(service).items():
            if source.startswith("./"):
                assert (ROOT / source).is_file()
                continue
            assert source in document["volumes"]
            assert not target.startswith(HOME) or f'"{target}"' in made
        assert set(service["networks"]) <= set(document["networks"])


def test_only_the_web_server_can_be_reached_and_only_from_this_machine() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"web"}
    assert SERVICES["web"]["ports"] == ["127.0.0.1:8080:8080"]
    assert parsed(SECRETS)["networks"]["inside"] == {"internal": True}


def test_who_waits_for_whom() -> None:
    """Accepting needs nothing but local disk; whoever works waits for the schema."""
    assert "depends_on" not in SERVICES["web"]
    for name in ("ingest", "sweep", "interactive", "variants", "maintenance", "beat"):
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            healthy = how["condition"] == "service_healthy"
            assert not healthy or "healthcheck" in SERVICES[other]


def test_the_settings_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS:
        with monkeypatch.context() as patched:
            for variable, value in (image_environment() | SERVICES[name]["environment"]).items():
                patched.setenv(variable, value)
            patched.setenv("MILLRACE_CONFIG", str(ROOT / "deploy" / "millrace.toml"))
            loaded = settings.load()
            assert loaded.staging_path == Path(HOME) / "staging"
            assert registry.describe(loaded)["main"]["endpoint_url"] == "http://s3:8333/"
        assert mounts(SERVICES[name])[SERVICES[name]["environment"]["MILLRACE_CONFIG"]] == "./deploy/millrace.toml"


def test_the_store_is_the_bucket_that_is_made() -> None:
    options = settings.tomllib.loads((ROOT / "deploy" / "millrace.toml").read_text())["stores"]["main"]
    (command,) = SERVICES["s3-setup"]["command"]
    assert f"s3.bucket.create -name {options['bucket']}'" in command
    assert f"-locationPrefix=/buckets/{options['bucket']}/ -fsync " in command


def test_valkey_takes_its_configuration(tmp_path: Path) -> None:
    """A real server with this very file; only its folder and its port are the test's."""
    document = parsed(SECRETS)
    content = document["configs"]["valkey"]["content"]
    assert SERVICES["valkey"]["configs"][0]["target"] in SERVICES["valkey"]["command"]
    file = tmp_path / "valkey.conf"
    assert "dir /data\n" in content
    file.write_text(content.replace("dir /data\n", f"dir {tmp_path}\n"))
    port = free_port()
    argv = [find_binary(), str(file), "--port", str(port), "--bind", "127.0.0.1"]
    client = redis.Redis(port=port, password=SECRETS["VALKEY_PASSWORD"])
    server = Process("valkey", argv, {}, ((15, 2.0),), probe=lambda: _answers(client))
    child = start(server, tmp_path / "valkey.log")
    try:
        asked = client.config_get("maxmemory*", "append*")
        assert (asked["maxmemory-policy"], asked["appendonly"]) == ("noeviction", "yes")
        assert int(asked["maxmemory"]) > 0
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    finally:
        client.close()
        stop([child])


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
