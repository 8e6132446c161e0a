"""Stores put together by placement rules keep the contract of one store: bytes routed by their size, replicated at once
and in the background, and tiered."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest

from core.errors import BadPath, StoreUnavailable
from core.model import BlobFacts
from core.sections import Placement
from pipeline.services import Services
from pipeline.stores import read_tracking
from storage.interface import ObjectStore
from tests.contracts.object_store import LEGAL_KEYS, MIB, ObjectStoreContract, fill, keys, read, sha256
from tests.storage.composites import Composite, Layout
from tests.storage.watched import Watched

SMALL = 32
"""Bytes up to which the rules here call a body small; the suite brings bodies of both kinds."""

FILES: Mapping[str, Any] = {"kind": "filesystem"}

LAYOUTS: Mapping[str, Layout] = {
    "tiered": Layout(
        {
            "hot": {**FILES, "tier": "hot", "promote_up_to": "16MiB", "promote_max_bytes": "4MiB"},
            "cold": {**FILES, "tier": "cold"},
        },
        default_store="cold",
        rules=[Placement(store="cold")],
    ),
    "replicated": Layout(
        {"near": {**FILES, "tier": "hot"}, "twin": FILES, "far": {**FILES, "tier": "cold"}},
        default_store="near",
        rules=[
            Placement.model_validate({"max_bytes": SMALL, "store": "near", "replicas": ["twin"]}),
            Placement(store="near", replicas=("far",), replication="background"),
        ],
    ),
    "routed": Layout(
        {"rows": {"kind": "postgres", "tier": "hot"}, "files": FILES},
        default_store="files",
        rules=[Placement.model_validate({"max_bytes": SMALL, "store": "rows"})],
    ),
}

BODIES = {"small": b"small", "large": bytes(range(256))}

Held = Mapping[str, Mapping[str, list[str]]]

AT_ONCE: Held = {
    "tiered": {"small": ["cold"], "large": ["cold"]},
    "replicated": {"small": ["near", "twin"], "large": ["near"]},
    "routed": {"small": ["rows"], "large": ["files"]},
}
"""Which stores hold a body when it was put."""
HELD_BY: Held = {
    **AT_ONCE,
    "tiered": {"small": ["cold", "hot"], "large": ["cold", "hot"]},
    "replicated": {"small": ["near", "twin"], "large": ["far", "near"]},
}
"""Which do in the end, when it was read."""

NO_PATHS = ["-", "f" * 255 + "/" + "f" * 256, "x/" * 255 + "xx"]
"""Keys that no asset's path can be: a segment with a meaning of its own, one that is too long, too many."""

_numbers = count()


@pytest.fixture(scope="module", params=list(LAYOUTS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def services(
    kind: str, postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    """One database for all tests of a composite."""
    connection = psycopg2.connect(postgres_url)
    connection.autocommit = True
    connection.cursor().execute(f'CREATE DATABASE "{kind}" TEMPLATE "{template_database}"')
    url = urlunsplit(urlsplit(postgres_url)._replace(path=f"/{kind}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read_tracking, "WRITE_SECONDS", 3600)  # a test says when copies are made
        made = LAYOUTS[kind].open(tmp_path_factory.mktemp(kind), url)
        yield made
        made.close()
    connection.cursor().execute(f'DROP DATABASE "{kind}" WITH (FORCE)')
    connection.close()


@pytest.fixture
def composite(services: Services) -> Iterator[Composite]:
    made = Composite(services, f"test{next(_numbers)}")
    yield made
    made.delete(keys(made))
    assert made.settle() == []
    assert [name for name, store in services.stores.items() if keys(store)] == []
    made.close()


class Silent:
    """A store that does not answer."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, method: str) -> Any:
        raise StoreUnavailable(f"{self.name} does not answer")


@contextmanager
def away(services: Services, name: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(services.stores, name, Silent(name))  # type: ignore[arg-type]  # it is a dict
        yield


class TestComposite(ObjectStoreContract):
    part_size = MIB
    legal_keys: ClassVar = [key for key in LEGAL_KEYS if key not in NO_PATHS]

    @pytest.fixture
    def store(self, composite: Composite) -> ObjectStore:
        return Watched(composite)

    @pytest.fixture
    def residue(self, composite: Composite) -> Callable[[], list[str]]:
        """Reservations that nobody confirmed are given up later."""
        return composite.settle


def test_a_key_that_is_no_path_is_refused_and_leaves_nothing(composite: Composite) -> None:
    for key in NO_PATHS:
        with pytest.raises(BadPath):
            fill(composite, key)
    assert keys(composite) == []
    assert composite.left_over() == []


@pytest.mark.parametrize("size", BODIES)
def test_the_stores_that_a_rule_names_hold_the_bytes(composite: Composite, kind: str, size: str) -> None:
    body = BODIES[size]
    fill(composite, "a", body)
    assert composite.held(sha256(body)) == AT_ONCE[kind][size]
    assert read(composite, "a") == body
    composite.copy(sha256(body))
    assert composite.held(sha256(body)) == HELD_BY[kind][size]
    fill(composite, "same/bytes", body)
    composite.settle()
    assert composite.held(sha256(body)) == HELD_BY[kind][size], "once in each store"
    composite.delete(["a"])
    assert composite.held(sha256(body)) == HELD_BY[kind][size]
    composite.delete(["same/bytes"])
    assert composite.held(sha256(body)) == []


def test_a_listing_is_in_key_order_across_stores(composite: Composite) -> None:
    names = [f"{number:02}/{size}" for number in range(12) for size in sorted(BODIES)]
    for name in random.Random(5).sample(names, len(names)):
        fill(composite, name, BODIES[name.partition("/")[2]] + name.encode()[:2])
    composite.settle()
    assert keys(composite) == names
    assert keys(composite, "0", after="07/large") == ["07/small", "08/large", "08/small", "09/large", "09/small"]
    merged = list(heapq.merge(*(keys(store) for store in composite.services.stores.values())))
    assert merged == sorted(merged)
    assert {key.partition(".")[0] for key in merged} == {composite.asset(name).blob.sha256.hex() for name in names}


@pytest.mark.parametrize("size", BODIES)
def test_with_one_store_away_what_another_has_is_read(composite: Composite, kind: str, size: str) -> None:
    body = BODIES[size]
    fill(composite, "a", body)
    assert read(composite, "a") == body
    composite.copy(sha256(body))
    holders = HELD_BY[kind][size]
    before, condemned = composite.replicas(sha256(body)), composite.condemned()
    for name in composite.services.stores:
        with away(composite.services, name):
            if holders == [name]:
                with pytest.raises(StoreUnavailable):
                    read(composite, "a")
            else:
                assert read(composite, "a") == body
            assert composite.head("a").size == len(body), "rows know it"
    assert (composite.replicas(sha256(body)), composite.condemned()) == (before, condemned)
    assert read(composite, "a") == body


@pytest.mark.parametrize("size", BODIES)
def test_a_store_that_must_have_it_at_once_and_is_away_leaves_nothing_visible(
    composite: Composite, kind: str, size: str
) -> None:
    body = BODIES[size]
    plan = composite.services.placements.plan("/any", BlobFacts(sha256(body), len(body), "image/png"))
    for name in composite.services.stores:
        with away(composite.services, name):
            if name in plan.now:
                with pytest.raises(StoreUnavailable):
                    fill(composite, "a", body)
                assert keys(composite) == []
            else:
                fill(composite, "a", body)
                assert read(composite, "a") == body
                composite.delete(["a"])
        assert composite.settle() == []
    fill(composite, "a", body)
    assert read(composite, "a") == body
    composite.copy(sha256(body))
    assert composite.held(sha256(body)) == HELD_BY[kind][size]


def test_a_lost_copy_is_read_past_and_made_again(composite: Composite, kind: str) -> None:
    body = BODIES["small"]
    fill(composite, "a", body)
    assert read(composite, "a") == body
    composite.copy(sha256(body))
    first = {"tiered": "hot", "replicated": "near", "routed": "rows"}[kind]
    composite.services.store(first).delete(keys(composite.services.store(first)))
    if kind == "routed":
        with pytest.raises(StoreUnavailable):
            read(composite, "a")
        return
    assert read(composite, "a") == body
    composite.copy(sha256(body))
    assert composite.held(sha256(body)) == HELD_BY[kind]["small"]
