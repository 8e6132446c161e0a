"""Our options in RocksDB's, and the two ways of opening. The only place that knows the binding's constructors.

The binding is imported when a database is opened: it is an optional package, and 10 MB of code for those who use it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from core.sections import MIB
from storage.rocksdb.options import RocksdbOptions

if TYPE_CHECKING:
    from rocksdict import BlockBasedOptions, Options, Rdict

MEMTABLES = 2
WAL_BYTES_PER_MEMTABLE = 4
TOMBSTONES, OF_ENTRIES = 64, 128
"""A file with so many deletions in a row is compacted soon, so that deleted bodies give their space back."""


def read_write(path: Path, options: RocksdbOptions, *, create: bool) -> Rdict:
    from rocksdict import AccessType, Rdict

    tuned = _tuned(options)
    tuned.create_if_missing(create)
    tuned.set_max_open_files(options.max_open_files)
    tuned.set_max_background_jobs(options.max_background_jobs)
    tuned.set_max_write_buffer_number(MEMTABLES)
    tuned.set_max_total_wal_size(int(options.write_buffer_size) * WAL_BYTES_PER_MEMTABLE)
    tuned.add_compact_on_deletion_collector_factory(OF_ENTRIES, TOMBSTONES, 0.5)
    return Rdict(str(path), options=tuned, access_type=AccessType.read_write())


def secondary(path: Path, messages: Path, options: RocksdbOptions) -> Rdict:
    from rocksdict import AccessType, Rdict

    tuned = _tuned(options)
    tuned.set_max_open_files(-1)
    return Rdict(str(path), options=tuned, access_type=AccessType.secondary(str(messages)))


def _tuned(options: RocksdbOptions) -> Options:
    from rocksdict import DBCompressionType, Options

    tuned = Options(raw_mode=True)
    tuned.set_compression_type(getattr(DBCompressionType, options.compression)())
    tuned.set_write_buffer_size(int(options.write_buffer_size))
    tuned.set_block_based_table_factory(_tables(options))
    tuned.set_keep_log_file_num(2)
    tuned.set_max_log_file_size(MIB)
    tuned.set_stats_dump_period_sec(0)
    return tuned


def _tables(options: RocksdbOptions) -> BlockBasedOptions:
    from rocksdict import BlockBasedOptions, Cache

    tables = BlockBasedOptions()
    if options.bloom_bits_per_key:
        tables.set_bloom_filter(options.bloom_bits_per_key, False)
    if options.block_cache_size:
        tables.set_block_cache(Cache(int(options.block_cache_size)))
    else:
        tables.disable_cache()
    return tables
