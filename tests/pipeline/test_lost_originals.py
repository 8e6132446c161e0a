"""An original of which no good copy is left is seen where people look for what failed, for as long as it is lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO

import pytest

from core.errors import BadRequest, NotFound
from core.findings import Finding, Grade
from core.model import Asset, Failure, FailureReason, Replica
from metadata.probes import PostgresProbe
from pipeline import failures
from pipeline.replicas.repair import repair
from pipeline.replicas.sources import mark
from tests.metadata.made import manifest, staged
from tests.pictures import encoded, photo
from tests.pipeline.line import Line


def picture(number: int) -> bytes:
    return encoded(photo(40 + number, 30), "JPEG")


def lose(line: Line, asset: Asset) -> str:
    """Returns the key of what was removed."""
    [replica] = line.services.metadata.blobs.replicas(asset.blob.sha256)
    line.services.store("main").delete([replica.key])
    mark(line.services, replica, "missing", "said somebody")
    return replica.key


@pytest.fixture
def assets(line: Line) -> list[Asset]:
    return [line.bring(f"/bare/{number}.jpg", picture(number)) for number in range(4)]


def quarantine(line: Line) -> Finding:
    probe = PostgresProbe(line.services.metadata.database, connections=1, durable=False)
    return next(check for check in probe.checks() if check.name == "quarantine").run()


def pages(line: Line, limit: int) -> Iterator[Failure]:
    after: str | None = None
    while True:
        page = failures.page(line.services, after=after, limit=limit)
        assert len(page.items) <= limit
        yield from page.items
        after = page.after
        if after is None:
            return


def test_the_doctor_and_the_failures_tell_of_it(line: Line, assets: list[Asset]) -> None:
    same = line.bring("/bare/same.jpg", picture(0))
    assert quarantine(line).grade is Grade.OK
    assert list(pages(line, 10)) == []
    lose(line, assets[0])
    found = quarantine(line)
    assert found.grade is Grade.PROBLEM
    assert (found.figures["blobs"], found.figures["assets"]) == (1, 2)
    told = {one.id: one for one in pages(line, 10)}
    assert set(told) == {assets[0].id, same.id}
    one = told[same.id]
    assert (one.subject, one.path, one.reason.kind, one.wish) == ("original", "/bare/same.jpg", "lost", None)
    assert one.reason.detail == "no good copy of the original is left: missing in main"
    assert failures.find(line.services, same.id) == one


def test_they_come_in_order_with_all_others_and_none_twice(line: Line, assets: list[Asset]) -> None:
    uploads = []
    for asset in assets:
        made = manifest(f"/failed{asset.path}")
        line.services.metadata.failures.put(staged(made, FailureReason("bad-image", "cut")))
        uploads.append(made.id)
        lose(line, asset)
    expected = [one for pair in zip(uploads, (asset.id for asset in assets), strict=True) for one in pair][::-1]
    for limit in (1, 2, 3, 8, 20):
        assert [one.id for one in pages(line, limit)] == expected


def test_what_is_back_is_found_at_once_when_somebody_says_so(line: Line, assets: list[Asset]) -> None:
    lost, body = assets[1], picture(1)
    key = lose(line, lost)
    assert repair(line.services) == 0
    line.services.metadata.repairs.failed(_sick(line), "not there", _LONG)
    with pytest.raises(BadRequest, match="delete it"):
        failures.wish(line.services, lost.id, "discard")
    line.services.store("main").put(
        key, BytesIO(body), size=len(body), sha256=lost.blob.sha256, media_type="image/jpeg"
    )
    assert repair(line.services) == 0  # it is not its turn
    assert failures.wish(line.services, lost.id, "retry") is not None
    assert repair(line.services) == 1
    assert list(pages(line, 10)) == []
    assert quarantine(line).grade is Grade.OK
    with pytest.raises(NotFound):
        failures.wish(line.services, lost.id, "retry")


def test_the_same_picture_heals_it(line: Line, assets: list[Asset]) -> None:
    lose(line, assets[2])
    line.bring("/bare/again.jpg", picture(2))
    assert list(pages(line, 10)) == []
    assert line.holds(picture(2))


def _sick(line: Line) -> Replica:
    [one] = line.services.metadata.inventory.sick(["main"], (b"", ""), 10)
    return one


_LONG = timedelta(hours=1)
