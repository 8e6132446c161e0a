"""`[stores.NAME] kind = "rocksdb"`.

Which of these keys suits whom is RocksDB's own matter: https://github.com/facebook/rocksdb/wiki/RocksDB-Tuning-Guide.
The defaults keep a process within about 64 MiB: pictures do not compress, and the memtables are the largest part.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar, Literal

from pydantic import ByteSize, Field, model_validator

from core.sections import KIB, MIB
from storage.free_space import DiskOptions
from storage.options import Deployment

MISSING = "rocksdb needs the package rocksdict, the extra `rocksdb` of millrace; run: pip install 'rocksdict>=0.3.29'"


class RocksdbOptions(DiskOptions):
    one_owner: ClassVar[bool] = True

    kind: Literal["rocksdb"] = "rocksdb"
    sync_to_disk: bool = True
    """The write-ahead log is synced before a put returns."""
    chunk_size: ByteSize = Field(default=ByteSize(256 * KIB), ge=4 * KIB, le=16 * MIB)
    """Bodies are cut into values of this size, and a range reads only its own. Kept with each object."""
    compression: Literal["none", "snappy", "lz4", "lz4hc", "zstd", "bz2"] = "none"
    """The binding takes `zlib`, too, and then compresses nothing."""
    bloom_bits_per_key: int = Field(default=10, ge=0, le=64)
    """Of the filters that spare a look-up the files without its key; 0: no filters."""
    block_cache_size: ByteSize = Field(default=ByteSize(16 * MIB), ge=0)
    """For each process that reads. 0: no cache."""
    write_buffer_size: ByteSize = Field(default=ByteSize(16 * MIB), ge=64 * KIB)
    """A memtable; there are two, and each process that reads holds a copy of them."""
    max_open_files: int = Field(default=512, ge=-1)
    """Of the owner, -1: all. Processes that only read keep all open, or the owner could delete them underfoot."""
    max_background_jobs: int = Field(default=2, ge=1, le=64)
    """Threads for flushes and compactions."""

    @model_validator(mode="after")
    def _chunks_fit(self) -> RocksdbOptions:
        if self.chunk_size * 2 > self.write_buffer_size:
            raise ValueError("write_buffer_size must hold at least two chunks (chunk_size)")
        return self

    def objection(self, deployment: Deployment) -> str | None:
        if find_spec("rocksdict") is None:
            return f"kind: {MISSING}"
        staging = deployment.staging
        if self.sync_to_disk or staging.ephemeral or staging.sync == "none":
            return None
        return (
            f"sync_to_disk: false is weaker than staging.sync = {staging.sync!r}: the staged copy, which is dropped"
            " once the object is stored, would have been the safer one"
        )
