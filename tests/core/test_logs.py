from __future__ import annotations

import json
import logging
from typing import Any

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
