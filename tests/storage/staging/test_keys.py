from __future__ import annotations

from pathlib import Path
from uuid import UUID

from uuid_utils.compat import uuid4, uuid7

from storage.staging.keys import BUCKETS, SLOTS, KeyIndex


def test_what_was_remembered_is_recalled_by_every_process(tmp_path: Path) -> None:
    first, second = KeyIndex(tmp_path), KeyIndex(tmp_path)
    asset_id = uuid4()
    uploads = [uuid7() for _ in range(3)]
    for upload_id in uploads:
        first.remember(asset_id, upload_id)
    assert second.recall(asset_id) == sorted(uploads, reverse=True)
    assert second.recall(uuid4()) == []


def test_a_backlog_of_100_000_keys_fits(tmp_path: Path) -> None:
    index = KeyIndex(tmp_path)
    known = {uuid4(): uuid7() for _ in range(20_000)}
    for asset_id, upload_id in known.items():
        index.remember(asset_id, upload_id)
    lost = [asset_id for asset_id, upload_id in known.items() if index.recall(asset_id) != [upload_id]]
    assert lost == []
    assert BUCKETS * SLOTS / 2 > 100_000


def test_a_full_bucket_gives_up_its_oldest(tmp_path: Path) -> None:
    index = KeyIndex(tmp_path)
    same_bucket = [UUID(int=(7 << 96) + number) for number in range(SLOTS + 1)]
    for asset_id in same_bucket:
        index.remember(asset_id, uuid7())
    assert index.recall(same_bucket[0]) == []
    assert all(index.recall(asset_id) for asset_id in same_bucket[1:])
