"""`/readyz` says whether a store's circuit breaker is open."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import httpx

from core.settings import Settings
from pipeline.stores.recognition import Marker
from storage.object_keys import MARKER
from storage.staging import installation
from tests.app.server import Web
from tests.storage.s3_script import Answer, Asked, Script, content, script

__all__ = ["script"]


def test_an_open_breaker_shows(start_web: Callable[..., Web], script: Script, tmp_path: Path) -> None:
    """PostgreSQL is away, so the host and the store have to know each other already."""
    home, marker = tmp_path / "home", Marker(uuid4(), "main")
    installation.keep(Settings(home=home), marker.installation)

    def has_its_marker_alone(asked: Asked) -> Answer:
        if asked.method == "GET" and asked.path.partition("?")[0].endswith(f"/{MARKER}"):
            return content(marker.text())
        return Answer(404 if asked.path.count("/") > 1 else 200)

    script.always = has_its_marker_alone
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
    web = start_web(home, STORES=json.dumps({"main": options}))

    def until_shown(word: str, *, ok: bool) -> None:
        """Wait until `/readyz` shows this state; a look at the store that got no answer in time does not show it."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            told = httpx.get(f"{web.url}/readyz", timeout=30).json()["dependencies"]["store:main"]
            if told["ok"] is ok and told["detail"].endswith(f"; circuit breaker: {word}"):
                return
            time.sleep(0.2)
        raise AssertionError(told)

    until_shown("closed", ok=True)
    script.always = lambda _: Answer(500)
    until_shown("open", ok=False)
    asked = len(script.asked)
    time.sleep(1.5)
    until_shown("open", ok=False)
    assert len(script.asked) == asked, "an open breaker asks nobody"
