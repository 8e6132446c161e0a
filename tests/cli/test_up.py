"""`make up` as its user meets it: one real stack, started, killed at, ended and started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg2
import pytest
import redis

from core.sections import Web
from supervise import stack
from supervise.address import Address
from tests.cli.processes import all_gone, command_of, descendants, identities, running_in

ROOT = Path(__file__).parents[2]
PICTURE = next(ROOT.glob("examples/*.jpg"), None)
KINDS = (("postgres",), ("valkey-server", "redis-server"), ("gunicorn",), ("celery",), ("sweep",))

Up = Callable[..., "subprocess.Popen[str]"]


def environment(home: Path, port: int, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MILLRACE_", "MAKE"))}
    return {**kept, "MILLRACE_HOME": str(home), "PORT": str(port), "HOST": "127.0.0.1", **more}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    started: list[subprocess.Popen[str]] = []

    def run(home: Path, port: int, *arguments: str, make: bool = False, **more: str) -> subprocess.Popen[str]:
        direct = [sys.executable, "-m", "cli", "up", *arguments]
        by_make = ["make", "--no-print-directory", "-o", ".venv/.stamp", "up", f"ARGS={' '.join(arguments)}"]
        log = (tmp_path / f"up-{len(started)}.log").open("w+")
        process = subprocess.Popen(
            by_make if make else direct,
            cwd=ROOT,
            env=environment(home, port, **more),
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        log.close()
        started.append(process)
        return process

    yield run
    for process in started:
        for pid in descendants(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def services(home: Path, process: subprocess.Popen[str], seconds: float = 90) -> dict[str, str]:
    """Wait until the stack says where its services are."""
    deadline = time.monotonic() + seconds
    file = home / "run" / "services.json"
    while not file.exists():
        assert process.poll() is None, said(home)
        assert time.monotonic() < deadline, said(home)
        time.sleep(0.1)
    assert file.stat().st_mode & 0o777 == 0o600
    found: dict[str, str] = json.loads(file.read_text())
    return found


def said(home: Path) -> str:
    return "\n".join(log.read_text() for log in sorted(home.parent.glob("up-*.log")))


def refused(home: Path, port: int, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "up"],
        cwd=ROOT,
        env=environment(home, port, **more),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert list(running_in(home)) == []
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_busy_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        complaint = refused(tmp_path / "home", port)
    assert f"127.0.0.1:{port}" in complaint
    assert len(complaint.splitlines()) == 1
    assert not (tmp_path / "home" / "postgres").exists()


def test_listening_to_strangers_is_an_order(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli", "up"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(tmp_path, 0, HOST="0.0.0.0"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "--allow-anonymous" in done.stderr
    assert not (tmp_path / "postgres").exists()


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("0.0.0.0", {}),
        ("there", {"MILLRACE_WEB__HOSTS": '["here", "there"]'}),
    ],
)
def test_the_web_server_is_told_what_up_was_told(host: str, told: dict[str, str]) -> None:
    web = Web(hosts=("here",), allow_anonymous=True)
    always = {"MILLRACE_WEB__ALLOW_ANONYMOUS": "true", "MILLRACE_WEB__STOP_DELAY_SECONDS": "0"}
    assert stack.of_web(web, Address(host, 80)) == always | told


def test_a_stop_waits_for_a_balancer_only_where_there_is_one() -> None:
    address = Address("127.0.0.1", 80)
    assert stack.of_web(Web(), address)["MILLRACE_WEB__STOP_DELAY_SECONDS"] == "0"
    assert stack.of_web(Web(stop_delay_seconds=5), address)["MILLRACE_WEB__STOP_DELAY_SECONDS"] == "5.0"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[staging\n", "millrace.toml"),
        ("[staging]\nsink = 1\n", "staging.sink"),
        ('[stores.main]\nkind = "drawer"\n', "drawer"),
        ("[profiles.thumb]\nwidth = 1\n", "profiles.thumb"),
    ],
)
def test_a_broken_configuration_is_said_before_anything_starts(
    tmp_path: Path, free_port: int, text: str, words: str
) -> None:
    config = tmp_path / "millrace.toml"
    config.write_text(text)
    complaint = refused(tmp_path / "home", free_port, MILLRACE_CONFIG=str(config))
    assert words in complaint
    assert not (tmp_path / "home" / "postgres").exists()


def test_config_shows_what_is_in_effect_and_no_secret(tmp_path: Path) -> None:
    config = tmp_path / "millrace.toml"
    config.write_text(
        'default_store = "far"\n[stores.far]\nkind = "s3"\nbucket = "pictures"\nregion = "eu-west-1"\n'
        'access_key_id = "me"\nsecret_access_key = "hush-key"\n'
    )
    variables = {"MILLRACE_DATABASE_URL": "postgresql://me:hush-db@host/db", "MILLRACE_CONFIG": str(config)}
    done = subprocess.run(
        [sys.executable, "-m", "cli", "config"],
        cwd=ROOT,
        env=environment(tmp_path, 0, **variables),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "hush" not in done.stdout
    shown = json.loads(done.stdout)
    assert shown["database_url"] == "postgresql://me:********@host/db"
    assert shown["stores"]["far"]["bucket"] == "pictures"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[stores.main]\nkind = "filesystem"\nroot = "/x"\ncolour = 1\n', "stores.main.colour: unknown key"),
        ("[profiles.hero]\nwidth = 1\n", "profiles.hero"),
    ],
)
def test_config_says_what_is_wrong_deep_inside(tmp_path: Path, text: str, words: str) -> None:
    config = tmp_path / "millrace.toml"
    config.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "cli", "config"],
        cwd=ROOT,
        env=environment(tmp_path, 0, MILLRACE_CONFIG=str(config)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_told_to_end_while_starting_complains_of_nothing(
    tmp_path: Path, up: Up, free_port: int, number: signal.Signals
) -> None:
    home = tmp_path / "home"
    stack = up(home, free_port)
    deadline = time.monotonic() + 60
    while not (home / "postgres.new").exists():  # initdb runs
        assert time.monotonic() < deadline, said(home)
        time.sleep(0.01)
    os.killpg(stack.pid, number)
    assert stack.wait(20) == 0, said(home)
    assert "failed" not in said(home)
    assert list(running_in(home)) == []


def test_a_stack_from_first_start_to_last(tmp_path: Path, up: Up, free_port: int) -> None:
    home = tmp_path / "home"
    make = up(home, free_port, "--no-examples", make=True)
    found = services(home, make)
    everything = identities(descendants(make.pid))
    commands = [command_of(process.pid) for process in everything]
    for names in KINDS:
        assert any(name in command for name in names for command in commands), (names, commands)
    assert any("celery" in command and " worker " in command for command in commands)
    assert any("celery" in command and " beat" in command for command in commands)
    assert_services_answer(found)
    asset = upload(found["http_url"])

    other_home = tmp_path / "other"
    other = up(other_home, 0, "--no-examples", "--ephemeral")
    elsewhere = services(other_home, other)
    assert elsewhere["http_url"] != found["http_url"]
    assert httpx.get(elsewhere["http_url"] + asset).status_code == 404
    in_memory = Path((other_home / "run" / "ephemeral").read_text())
    assert in_memory.is_dir()

    make.terminate()
    make.wait(20)
    assert all_gone(everything), said(home)
    assert not (home / "run" / "services.json").exists()
    assert_logs_are_json(home / "log")

    again = up(home, free_port, "--no-examples")
    assert upload_is_there(services(home, again)["http_url"], asset)
    everything = identities([*descendants(again.pid), *running_in(home)])
    again.kill()
    assert all_gone(everything), said(home)

    other.send_signal(signal.SIGINT)
    assert other.wait(20) == 0
    assert not in_memory.exists()


def assert_services_answer(found: dict[str, str]) -> None:
    connection = psycopg2.connect(found["database_url"])
    connection.close()
    client = redis.Redis.from_url(found["redis_url"])
    assert client.ping()
    client.close()
    assert httpx.get(f"{found['http_url']}/livez").status_code == 200


def assert_logs_are_json(folder: Path) -> None:
    ids = set()
    for name in ("web", "ingest", "interactive", "variants", "maintenance", "beat", "sweep"):
        records = [json.loads(line) for line in (folder / f"{name}.log").read_text().splitlines()]
        assert all(record["message"] for record in records)
        ids |= {(name, record["upload_id"], record.get("sha256")) for record in records if "upload_id" in record}
    (request,) = {upload_id for name, upload_id, _ in ids if name == "web"}
    assert any(name == "ingest" and upload_id == request and sha256 for name, upload_id, sha256 in ids)


def upload(http_url: str, seconds: float = 90) -> str:
    assert PICTURE is not None
    accepted = httpx.post(f"{http_url}/assets/here.jpg", content=PICTURE.read_bytes(), timeout=30)
    assert accepted.status_code == 202, accepted.text
    deadline = time.monotonic() + seconds
    while (told := httpx.get(http_url + accepted.headers["Location"], timeout=30).json())["state"] != "ready":
        assert time.monotonic() < deadline, told
        time.sleep(0.2)
    asset = str(told["links"]["asset"])
    assert upload_is_there(http_url, asset)
    return asset


def upload_is_there(http_url: str, asset: str) -> bool:
    return httpx.get(f"{http_url}{asset}/info", timeout=30).status_code == 200
