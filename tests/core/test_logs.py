from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from core import logs


def formatted(message: str, *arguments: object, **extra: Any) -> str:
    record = logging.LogRecord("x", logging.INFO, __file__, 1, message, arguments, None)
    record.__dict__.update(extra)
    return logs.Formatter().format(record)


def test_one_record_is_one_line_whatever_is_in_it() -> None:
    line = formatted("a\nb %s", "\x1b[31m\x7f\u2028\x85", path="/x\r\n{}")
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == "a\nb \x1b[31m\x7f\u2028\x85"
    assert json.loads(line)["path"] == "/x\r\n{}"


def test_ids_are_bound_to_the_work_they_belong_to() -> None:
    with logs.bound(request_id="r"):
        with logs.bound(upload_id="u"):
            inner = json.loads(formatted("x"))
        logs.note(asset_id="a")
        outer = json.loads(formatted("x"))
    after = json.loads(formatted("x"))
    assert (inner["request_id"], inner["upload_id"]) == ("r", "u")
    assert (outer["request_id"], outer["asset_id"], "upload_id" in outer) == ("r", "a", False)
    assert not {"request_id", "upload_id", "asset_id"} & after.keys()


def test_passwords_in_urls_never_get_out() -> None:
    for url in ("postgresql://u:hush@h/db", "redis://:hush@h:1/0", "https://a:hu:sh@h"):
        line = formatted("cannot reach %s", url, url=url)
        assert "hush" not in line
        assert "hu:sh" not in line
        assert "://***@h" in json.loads(line)["url"]


def test_an_event_is_the_line_that_a_record_would_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = logging.getLogger("tests.event")
    with (tmp_path / "log").open("wb") as file:
        monkeypatch.setattr(logs, "_lines", logs.Lines(file.fileno()))
        log.setLevel(logging.INFO)
        with logs.bound(request_id="r"):
            logs.event(log, "request", path="/\x7f\n://u:hush@h", status=202)
        log.setLevel(logging.WARNING)
        logs.event(log, "not at this level")
        log.setLevel(logging.NOTSET)
    [line] = (tmp_path / "log").read_text().splitlines()
    said = json.loads(line)
    assert "\x7f" not in line
    assert said["path"] == "/\x7f\n://***@h"
    record = json.loads(formatted("request", path="", status=202, request_id="r"))
    assert said.keys() == record.keys()
    assert (said["level"], said["logger"], said["request_id"]) == ("INFO", "tests.event", "r")


def test_an_event_elsewhere_is_a_record(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_lines", None)
    with caplog.at_level(logging.INFO):
        logs.event(logging.getLogger("tests.event"), "request", status=202)
    [record] = caplog.records
    assert (record.getMessage(), vars(record)["status"]) == ("request", 202)


def test_every_line_says_its_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(logs, "_where", {"host": "a"})
    assert json.loads(formatted("x"))["host"] == "a"
    assert "host_id" not in json.loads(formatted("x"))  # not known yet
    logs.of_host(UUID(int=1))
    assert json.loads(formatted("x"))["host_id"] == str(UUID(int=1))
    assert json.loads(formatted("of another", host_id="b"))["host_id"] == "b"
    with (tmp_path / "log").open("wb") as file:
        monkeypatch.setattr(logs, "_lines", logs.Lines(file.fileno()))
        logs.event(logging.getLogger("tests.event"), "x", level=logging.CRITICAL)
    said = json.loads((tmp_path / "log").read_text())
    assert (said["host"], said["host_id"], said["level"]) == ("a", str(UUID(int=1)), "CRITICAL")
