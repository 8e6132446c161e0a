"""Behind Debian's HAProxy, as a fleet is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from tests.app.server import Web, running
from tests.pictures import encoded, photo


def test_an_upload_goes_through(tmp_path: Path, haproxy: Callable[[Mapping[str, str]], int]) -> None:
    with running(Web(tmp_path / "home")) as web:
        port = haproxy({"only": f"127.0.0.1:{web.port}"})
        answer = httpx.post(f"http://127.0.0.1:{port}/assets/a", content=encoded(photo(), "JPEG"), timeout=30)
    assert answer.status_code == 202
