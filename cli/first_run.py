"""The first start sends `examples/` through the HTTP API, so that there is something to look at.

A marker in the home remembers that it was done. A failure here is said and harms nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from supervise.shutdown_signal import Stop

EXAMPLES = Path(__file__).parent.parent / "examples"
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".avif"})
_PATIENCE_SECONDS = 120


def begin(home: Path, http_url: str, stop: Stop, say: Callable[[str], None]) -> None:
    """Send the examples in the background, unless that was done before."""
    threading.Thread(target=_send_once, args=(home, http_url, stop, say), name="examples", daemon=True).start()


def _send_once(home: Path, http_url: str, stop: Stop, say: Callable[[str], None]) -> None:
    marker = home / "examples-sent"
    pictures = sorted(file for file in EXAMPLES.glob("*") if file.suffix.lower() in _SUFFIXES)
    if marker.exists() or not pictures:
        return
    try:
        with httpx.Client(base_url=http_url, timeout=30, trust_env=False) as client:
            ready = _send(client, pictures, stop)
        marker.touch()
    except (httpx.HTTPError, KeyError, OSError) as error:
        if not stop.is_set():
            say(f"the examples could not be sent, the next start tries again: {error}")
        return
    if not stop.is_set():
        shown = next((picture for picture in pictures if picture.suffix == ".jpg"), pictures[0])
        url = f"{http_url}/assets/examples/{quote(shown.name)}/-/content?profile=thumb"
        look = f"curl -o thumb{shown.suffix} '{url}'"
        say(f"{ready} of {len(pictures)} examples are ready; look at one: {look}")


def _send(client: httpx.Client, pictures: list[Path], stop: Stop) -> int:
    """Upload all, then wait until each has ended; returns how many are ready."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns) as progress:
        sent, ready = (progress.add_task(name, total=len(pictures)) for name in ("examples sent", "ready"))
        waiting = []
        for picture in pictures:
            if stop.is_set():
                return 0
            with picture.open("rb") as body:
                answer = client.post(f"/assets/examples/{quote(picture.name)}", content=body).raise_for_status()
            waiting.append(answer.json()["links"]["self"])
            progress.advance(sent)
        return _wait_until_ended(client, waiting, stop, lambda: progress.advance(ready))


def _wait_until_ended(client: httpx.Client, waiting: list[str], stop: Stop, is_ready: Callable[[], None]) -> int:
    count = 0
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while waiting and time.monotonic() < deadline and not stop.wait(0.3):
        for link in list(waiting):
            answer = client.get(link)
            state = answer.json().get("state") if answer.status_code == 200 else None
            if state in ("ready", "failed"):
                waiting.remove(link)
            if state == "ready":
                count += 1
                is_ready()
    return count
