"""The S3 server of docker-compose.yml for the soak: SeaweedFS, whole in one process, its bucket synced. It dies with
the thread that started it.

Configured as the compose file does it: `weed mini`, then a bucket, then `fs.configure -fsync` for it.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import boto3
import httpx

import core.parent_death

START_SECONDS = 60
ACCESS_KEY_ID = "seaweedfs-test-key"
SECRET_ACCESS_KEY = "seaweedfs-test-secret"
GRPC_OFFSET = 10_000
"""Each part of the server also listens so much above its own port."""
PORTS = range(12_000, 22_000)
"""They and their twins lie below the ports that Linux gives to connections."""


class SeaweedServer:
    def __init__(self, directory: Path, *, address: str = "127.0.0.1", inside: Sequence[str] = ()) -> None:
        """`inside`: the words that begin a command in the network that has the address."""
        self._address = address
        self._inside = list(inside)
        self._data = directory / "data"
        self._data.mkdir(parents=True)
        self._log = directory / "log"
        self._ports = dict(zip(("s3", "master", "filer", "volume", "admin"), _free_ports(), strict=False))
        self.endpoint = f"http://{address}:{self._ports['s3']}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on the data that it has, and wait until it answers."""
        guard = [sys.executable, "-I", "-S", core.parent_death.__file__, str(os.getpid()), str(int(signal.SIGKILL))]
        options = [
            f"-dir={self._data}",
            f"-ip={self._address}",
            f"-ip.bind={self._address}",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-filer.localSocket={self._data / 'filer.sock'}",
            *(f"-{part}.port={port}" for part, port in self._ports.items()),
        ]
        credentials = {"AWS_ACCESS_KEY_ID": ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                guard + self._inside + _weed("mini") + options,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._data,
                env={**os.environ, **credentials},
            )
        self._wait(self._process)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def make_bucket(self, name: str) -> None:
        """Make one whose writes are synced before they are answered."""
        lines = [f"s3.bucket.create -name {name}", f"fs.configure -locationPrefix=/buckets/{name}/ -fsync -apply"]
        master, filer = (f"-{part}={self._address}:{self._ports[part]}" for part in ("master", "filer"))
        done = subprocess.run(
            [*_weed("shell"), master, filer],
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert '"fsync":  true' in done.stdout, done.stdout + done.stderr

    def keys(self, bucket: str) -> list[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def client(self):  # type: ignore[no-untyped-def]  # its type is generated at run time
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
            region_name="us-east-1",
        )

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                ready = "All enabled components are running" in self._log.read_text(errors="replace")
                if ready and httpx.get(f"{self.endpoint}/healthz", timeout=2, trust_env=False).status_code == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(f"SeaweedFS does not start:\n{self._log.read_text(errors='replace')[-3000:]}")


@contextmanager
def seaweedfs_server(directory: Path) -> Iterator[SeaweedServer]:
    server = SeaweedServer(directory)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _weed(command: str) -> list[str]:
    return [str(Path(sys.executable).with_name("weed")), command]


def _free_ports() -> Iterator[int]:
    """Ports that are free together with their twins for gRPC. The system gives no connection one of these: it would be
    taken again before the server listens there."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, socket.socket() as twin, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            twin.bind(("127.0.0.1", port + GRPC_OFFSET))
            yield port
