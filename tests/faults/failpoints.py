"""Which failpoints there are, read from the sources, so that a new one is killed at though no list names it."""

from __future__ import annotations

import re

from tests.rooms import ROOMS, ROOT

CALL = re.compile(r"""\bfailpoint\(\s*f?"([^"]+)\"""")

FOLDERS = ("accepted", "quarantine", "trash")
"""What `staging.move-to-…` stands for (`storage/staging/folders.py`)."""

ELSEWHERE = {
    name: f"tests/{path}.py"
    for path, names in {
        "storage/test_local_copies": ("copies.before-write", "copies.before-rename"),
        "storage/test_s3_kills": ("s3.before-put", "s3.after-put", "s3.before-complete"),
        "storage/test_postgres_faults": (
            "postgres.before-put",
            "postgres.after-put",
            "postgres.after-begin",
            "postgres.after-batch",
            "postgres.before-publish",
            "postgres.after-publish",
        ),
        "storage/test_rocksdb": (
            "rocksdb.before-write",
            "rocksdb.before-record",
            "rocksdb.after-record",
            "rocksdb.before-sync",
        ),
        "storage/staging/test_processes": ("host.before-link",),
        "storage/staging/test_quarantine": ("staging.empty-trash", "staging.sweep-incoming"),
        "pipeline/test_installation": ("installation.before-rename",),
        "pipeline/test_derive": ("alone.start",),
        "pipeline/test_alone": ("decode.before-read", "staging.before-read"),
        "pipeline/test_loops": ("loop.turn",),
        "app/test_main_loop": ("web.connection",),
        "pipeline/test_migration": (
            "copy.after-begin",
            "copy.after-put",
            "migrate.after-drain",
            "migrate.after-copy",
            "job.after-step",
        ),
        "pipeline/test_catalogue": (
            "catalogue.before-put",
            "catalogue.after-put",
            "catalogue.after-forget",
        ),
        "pipeline/test_compaction": ("catalogue.after-merge", "catalogue.after-carry"),
        "pipeline/test_markers": ("recognition.before-mark", "recognition.after-mark"),
        "pipeline/test_rules": ("apply.after-want", "apply.after-copy"),
        "pipeline/test_rebuild": ("rebuild.before-commit", "rebuild.after-commit"),
        "pipeline/test_orphans": ("gc.after-discard", "identify.after-delete", "identify.after-mark"),
        "pipeline/test_remaking": ("remake.before-commit",),
        "pipeline/test_restoration": ("restore.after-look",),
        "pipeline/test_policy_kills": (
            "demote.after-begin",
            "demote.after-copy",
            "demote.before-commit",
            "demote.after-commit",
        ),
        "pipeline/test_catching_up": ("catch-up.after-sequence", "catch-up.after-take"),
        "pipeline/test_verification": ("verify.after-read", "verify.after-repair", "verify.before-mark"),
    }.items()
    for name in names
}
"""Not on the way of a stack with a filesystem store that runs already: fired by the tests of their rooms."""


def named() -> list[str]:
    found: set[str] = set()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            found.update(CALL.findall(path.read_text()))
    return sorted(name for one in found for name in _spelled_out(one))


def _spelled_out(name: str) -> list[str]:
    before, brace, _ = name.partition("{")
    return [before + folder for folder in FOLDERS] if brace else [name]
