"""docs/backup.md: its commands, as they stand there, against a stack under load whose database is then destroyed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from supervise.python_process import program
from tests.faults.history import Told
from tests.faults.stack import ROOT, SETTINGS, Stack
from tests.pictures import encoded, photo

DOCUMENT = ROOT / "docs" / "backup.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


def section(name: str) -> str:
    return TEXT.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]


def commands(name: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", section(name), re.DOTALL | re.MULTILINE)


def picture(number: int) -> bytes:
    return encoded(photo(80 + number, 60), "JPEG")


class Installation(Stack):
    def __enter__(self) -> Installation:
        self.start()
        return self

    def follow(self, block: str) -> None:
        """Run a block of the page as a person does who stops at the first error."""
        variables = {
            **self.environment,
            "BACKUP": str(self.home.parent / "backup"),
            "PATH": os.pathsep.join([str(Path(program("millrace")).parent), os.environ["PATH"]]),
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=ROOT,
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"

    def bring(self, first: int, last: int) -> list[Told]:
        told = [self.upload(f"/pictures/{number}.jpg", picture(number), wait=20) for number in range(first, last)]
        assert all(one.status == 201 for one in told)
        return told

    def content(self, told: Told, query: str = "") -> httpx.Response:
        return httpx.get(f"{self.url}/assets{told.path}/-/content{query}", timeout=20)

    @contextmanager
    def load(self) -> Iterator[None]:
        """Uploads and reads go on meanwhile."""
        over = threading.Event()

        def work() -> None:
            number = 0
            while not over.wait(0.2):
                number += 1
                told = self.upload(f"/load/{number}.jpg", encoded(photo(50, 40 + number % 100), "JPEG"))
                self.content(told, "?w=20")

        worker = threading.Thread(target=work)
        worker.start()
        try:
            yield
        finally:
            over.set()
            worker.join()


def settings() -> str:
    """Those of every stack here, with what the page asks for."""
    [block] = re.findall(r"```toml\n(.*?)```", section("Before the first backup"), re.DOTALL)
    asked = tomllib.loads(block)["work"]["gc_grace_seconds"]
    changed = SETTINGS.replace("\ngc_grace_seconds = 1\n", f"\ngc_grace_seconds = {asked}\n")
    assert changed != SETTINGS
    return changed


def test_the_page_is_followed_from_the_first_dump_to_the_last_asset(tmp_path: Path) -> None:
    dump, copy_of_the_store = commands("Backup")
    restore_rows, restore_bytes, catch_up_and_verify, start = commands("Restore")
    assert start == "millrace up\n"
    with Installation(tmp_path, settings=settings()) as stack:
        gone, *kept = stack.bring(0, 7)
        stack.delete(gone)
        with stack.load():
            stack.follow(dump)
            stack.follow(copy_of_the_store)
        later = stack.bring(7, 10)
        for undone in kept[:2]:
            stack.delete(undone)
            stack.until(lambda told=undone: stack.content(told).status_code == 404, 10, "it is gone")
        stack.stop()
        shutil.rmtree(stack.home / "postgres")
        for block in (restore_rows, restore_bytes, catch_up_and_verify):
            stack.follow(block)
        unknown = (tmp_path / "backup" / "unknown.txt").read_text()
        assert all(told.sha256 in unknown for told in later)
        assert not any(told.sha256 in unknown for told in kept)
        stack.start()
        for told in kept:
            assert hashlib.sha256(stack.content(told).content).hexdigest() == told.sha256
            assert stack.content(told, "?profile=thumb").status_code == 200
        assert [stack.content(told).status_code for told in (gone, *later)] == [404] * 4
        [(before,)] = stack.sql("SELECT max(generation) FROM replica")
        [again] = stack.bring(7, 8)
        [(after,)] = stack.sql("SELECT generation FROM replica WHERE encode(blob, 'hex') = %s", again.sha256)
        assert after > max(before, *(int(line.split()[1].rpartition(".")[2]) for line in unknown.splitlines()))
        assert hashlib.sha256(stack.content(again).content).hexdigest() == again.sha256
    # And if the bytes had been lost as well: the copy was made after the dump, so it has all that the dump names.
    objects = stack.home / "store" / "objects"
    shutil.rmtree(objects)
    stack.follow(restore_bytes)
    found = {hashlib.sha256(path.read_bytes()).hexdigest() for path in objects.rglob("*") if path.is_file()}
    assert {told.sha256 for told in kept} <= found


def test_links_within_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", TEXT):
        assert (DOCUMENT.parent / target).exists(), target
