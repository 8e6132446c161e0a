"""`/readyz` says whether a store's circuit breaker is open."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import httpx

from tests.app.server import Web
from tests.storage.s3_script import Answer, Script, script

__all__ = ["script"]


def test_an_open_breaker_shows(start_web: Callable[..., Web], script: Script) -> None:
    script.always = lambda asked: Answer(404 if asked.path.count("/") > 1 else 200)
    options = {
        "kind": "s3",
        "bucket": "pictures",
        "endpoint_url": f"http://127.0.0.1:{script.server_port}",
        "addressing_style": "path",
        "access_key_id": "test-key",
        "secret_access_key": "test-secret",
        "max_attempts": 1,
        "breaker_failures": 2,
        "breaker_seconds": 600,
    }
    web = start_web(STORES=json.dumps({"main": options}))

    def shown(word: str) -> dict[str, object]:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            told: dict[str, object] = httpx.get(f"{web.url}/readyz").json()["dependencies"]["store:main"]
            if str(told["detail"]).endswith(f"; circuit breaker: {word}"):
                return told
            time.sleep(0.2)
        raise AssertionError(told)

    assert shown("closed")["ok"]
    script.always = lambda _: Answer(500)
    assert not shown("open")["ok"]
    asked = len(script.asked)
    time.sleep(1.5)
    assert not shown("open")["ok"]
    assert len(script.asked) == asked, "an open breaker asks nobody"
