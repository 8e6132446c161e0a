"""kill -9 in the middle of a put into S3: the object is whole or not there, and the next put makes it so."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import NotFound
from storage.s3.store import S3Store
from tests.contracts.object_store import MIB, read, sha256
from tests.storage.test_s3 import bucket, shared  # fixtures are found by their names

__all__ = ["bucket", "shared"]

WRITER = """
import io, sys
from storage.s3.store import S3Store
from tests.contracts.object_store import sha256
from tests.storage.s3_options import options
data = b"x" * int(sys.argv[4])
store = S3Store("main", options(sys.argv[1], sys.argv[2]))
store.put(sys.argv[3], io.BytesIO(data), size=len(data), sha256=sha256(data), media_type="image/png")
"""


@pytest.mark.parametrize(
    ("number", "step", "size", "there"),
    [
        (1, "s3.before-put", 1000, False),
        (2, "s3.before-complete", 6 * MIB, False),
        (3, "s3.after-put", 1000, True),
        (4, "s3.after-put", 6 * MIB, True),
    ],
)
def test_a_killed_put_leaves_all_or_nothing(
    s3_endpoint: str, shared: S3Store, bucket: str, tmp_path: Path, number: int, step: str, size: int, there: bool
) -> None:
    shared.sweep_unfinished()
    (tmp_path / step).write_text("kill")
    environment = os.environ | {"MILLRACE_FAILPOINTS": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    data = b"x" * size
    key = f"{sha256(data).hex()}.{number}"
    ended = subprocess.run([sys.executable, "-c", WRITER, s3_endpoint, bucket, key, str(size)], env=environment)
    assert ended.returncode == -signal.SIGKILL
    if there:
        assert shared.head(key).sha256 == sha256(data)
    else:
        with pytest.raises(NotFound):
            shared.head(key)
    assert shared.sweep_unfinished() == (step == "s3.before-complete"), "what the killed writer left"
    shared.put(key, io.BytesIO(data), size=size, sha256=sha256(data), media_type="image/png")
    assert read(shared, key) == data
