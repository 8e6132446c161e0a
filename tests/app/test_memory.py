"""Far more bytes than it may hold go through in any accepted format without the process growing."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.app.server import Web, head, read_answer
from tests.pictures import encoded, photo

GIB, PART = 1 << 30, 256 << 20
ALLOWED = 32 << 20
ZEROS = bytes(1 << 20)


def padded_head(kind: str, size: int) -> bytes:
    """Return the start of a file that is valid when zeros follow up to exactly this size."""
    data = encoded(photo(), kind)
    if kind == "WEBP":  # one more chunk, which readers skip
        data = data[:4] + struct.pack("<I", size - 8) + data[8:]
        return data + b"JUNK" + struct.pack("<I", size - len(data) - 8)
    if kind == "AVIF":  # one more box, which readers skip
        return data + struct.pack(">I4s", size - len(data), b"free")
    return data


def high_water_mark(pid: int) -> int:
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def send(web: Web, size: int, start: bytes, fields: dict[str, object], end: bytes = b"") -> int:
    with web.connect() as connection:
        connection.settimeout(120)
        connection.sendall(head("POST", "/assets/large", Content_Length=size + len(end), **fields) + start)
        left = size - len(start)
        while left:
            left -= connection.send(ZEROS[: min(left, len(ZEROS))])
        connection.sendall(end)
        return read_answer(connection).status


@pytest.fixture
def home(services_directory: Path, tmp_path: Path) -> Path:
    """In memory where there is a tmpfs: the disk is not what is looked at."""
    home = services_directory / tmp_path.name
    home.mkdir()
    return home


def test_a_gibibyte_and_a_part_of_one_in_any_format_need_no_memory(start_web: Callable[..., Web], home: Path) -> None:
    limits = {"STAGING__SYNC": "none", "STAGING__MIN_FREE_BYTES": 0, "STAGING__HIGH_WATER_PERCENT": 100}
    web = start_web(home, **limits)
    [worker] = web.workers()
    small = encoded(photo(), "JPEG")
    assert web.exchange(head("POST", "/assets/a", Content_Length=len(small)) + small).status == 202
    before = high_water_mark(worker)
    boundary = b'--b\r\nContent-Disposition: form-data; name="asset"; filename="a"\r\n\r\n'
    form = {"Content_Type": "multipart/form-data; boundary=b"}
    sizes = {"JPEG": GIB, **dict.fromkeys(("PNG", "GIF", "TIFF", "WEBP", "AVIF"), PART)}
    cases = [(size, padded_head(kind, size), {}, b"") for kind, size in sizes.items()]
    for size, start, fields, end in [*cases, (PART, boundary + small, form, b"\r\n--b--\r\n")]:
        assert send(web, size, start, fields, end) == 202
        for entry in (home / "staging" / "accepted").iterdir():
            entry.unlink()
        assert high_water_mark(worker) - before <= ALLOWED
    assert web.workers() == [worker]
    shutil.rmtree(home / "staging" / "accepted")
