"""One fact as one line of JSON, and back.

Guarantees: a line stands for itself, and of two lines with one key the one with the higher version is right. A line of
a newer format is refused and not skipped: what it says could be that something was deleted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from core.errors import Corrupt, Misconfigured
from core.model import Asset, BlobFacts, Details, ImageFacts, WantedVariant
from metadata.journal.journal_records import Asked, Counter, Deleted, Fact, Recorded, Rendered

FORMAT: Final = 1

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    version: int
    fact: Fact

    @property
    def key(self) -> str:
        """What it is about. An asset and its tombstone are one thing."""
        match self.fact:
            case Recorded():
                return f"asset {self.fact.asset.id}"
            case Deleted():
                return f"asset {self.fact.asset_id}"
            case Asked(asset_id, source, want):
                return f"asked {asset_id} {source.hex()} {want.recipe_hash.hex()} {want.profile or ''}"
            case Rendered(source, want):
                return f"rendered {source.hex()} {want.recipe_hash.hex()}"
            case Counter(path_hash):
                return f"counter {path_hash.hex()}"

    @property
    def text(self) -> str:
        kind, write, _ = _FORMS[type(self.fact)]
        return json.dumps(
            {"v": FORMAT, "n": self.version, "kind": kind, **write(self.fact)},
            ensure_ascii=False,
            separators=(",", ":"),
        )

    @classmethod
    def parse(cls, text: str) -> Line:
        """
        Raises:
            Corrupt: it is no line of a catalogue.
            Misconfigured: a newer Millrace wrote it.
        """
        try:
            said = json.loads(text)
            if said["v"] > FORMAT:
                raise Misconfigured(
                    f"the catalogue has lines of format {said['v']}: use the newer Millrace that wrote it"
                )
            return cls(int(said["n"]), _READERS[said["kind"]](said))
        except (ValueError, KeyError, TypeError):
            raise Corrupt(f"not a line of a catalogue: {text[:80]!r}") from None


def _write_recorded(fact: Recorded) -> Json:
    asset = fact.asset
    return {
        "id": str(asset.id),
        "path": asset.path,
        "entry": asset.entry,
        **_write_blob(asset.blob),
        "width": asset.width,
        "height": asset.height,
        "frames": asset.frames,
        "orientation": asset.image.orientation,
        "alpha": asset.image.has_alpha,
        "alt": asset.details.alt,
        "labels": dict(asset.details.labels),
        "tags": list(asset.details.tags),
        "fingerprint": fact.fingerprint.hex(),
        "upload": str(fact.upload_id),
        "host": fact.host_id and str(fact.host_id),
        "acceptedAt": asset.accepted_at.isoformat(),
        "acceptedByHostAt": asset.accepted_by_host_at.isoformat(),
        "createdAt": asset.created_at.isoformat(),
        "eager": [_write_want(want) for want in fact.eager],
    }


def _read_recorded(said: Json) -> Recorded:
    blob = _read_blob(said)
    width, height, frames = int(said["width"]), int(said["height"]), said["frames"]
    asset = Asset(
        id=UUID(said["id"]),
        path=said["path"],
        entry=int(said["entry"]),
        blob=blob,
        width=width,
        height=height,
        frames=frames,
        details=Details(said["alt"], dict(said["labels"]), tuple(said["tags"])),
        accepted_at=datetime.fromisoformat(said["acceptedAt"]),
        # Lines from before hosts and PostgreSQL were told apart have one time for both.
        accepted_by_host_at=datetime.fromisoformat(said.get("acceptedByHostAt", said["acceptedAt"])),
        created_at=datetime.fromisoformat(said["createdAt"]),
        image=ImageFacts(blob.media_type, width, height, frames, int(said["orientation"]), bool(said["alpha"])),
    )
    host = said["host"] and UUID(said["host"])
    eager = [_read_want(want, eager=True) for want in said["eager"]]
    return Recorded(asset, bytes.fromhex(said["fingerprint"]), UUID(said["upload"]), host, eager)


def _write_deleted(fact: Deleted) -> Json:
    return {
        "id": str(fact.asset_id),
        "path": fact.path,
        "entry": fact.entry,
        "sha256": fact.blob and fact.blob.hex(),
        "fingerprint": fact.fingerprint.hex(),
        "upload": str(fact.upload_id),
        "deletedAt": fact.deleted_at.isoformat(),
    }


def _read_deleted(said: Json) -> Deleted:
    return Deleted(
        asset_id=UUID(said["id"]),
        path=said["path"],
        entry=int(said["entry"]),
        fingerprint=bytes.fromhex(said["fingerprint"]),
        upload_id=UUID(said["upload"]),
        deleted_at=datetime.fromisoformat(said["deletedAt"]),
        blob=said["sha256"] and bytes.fromhex(said["sha256"]),
    )


def _write_asked(fact: Asked) -> Json:
    return {"id": str(fact.asset_id), "source": fact.source.hex(), **_write_want(fact.want)}


def _read_asked(said: Json) -> Asked:
    return Asked(UUID(said["id"]), bytes.fromhex(said["source"]), _read_want(said))


def _write_rendered(fact: Rendered) -> Json:
    return {"source": fact.source.hex(), **_write_want(fact.want), **_write_blob(fact.output)}


def _read_rendered(said: Json) -> Rendered:
    return Rendered(bytes.fromhex(said["source"]), _read_want(said), _read_blob(said))


def _write_counter(fact: Counter) -> Json:
    return {"pathHash": fact.path_hash.hex(), "next": fact.next}


def _read_counter(said: Json) -> Counter:
    return Counter(bytes.fromhex(said["pathHash"]), int(said["next"]))


def _write_blob(blob: BlobFacts) -> Json:
    return {"sha256": blob.sha256.hex(), "size": blob.size, "mediaType": blob.media_type}


def _read_blob(said: Json) -> BlobFacts:
    return BlobFacts(bytes.fromhex(said["sha256"]), int(said["size"]), said["mediaType"])


def _write_want(want: WantedVariant) -> Json:
    return {"profile": want.profile, "recipeHash": want.recipe_hash.hex(), "recipe": dict(want.recipe)}


def _read_want(said: Json, *, eager: bool = False) -> WantedVariant:
    return WantedVariant(bytes.fromhex(said["recipeHash"]), said["recipe"], said["profile"], eager)


_FORMS: Final[Mapping[type[Any], tuple[str, Callable[[Any], Json], Callable[[Json], Fact]]]] = {
    Recorded: ("asset", _write_recorded, _read_recorded),
    Deleted: ("deleted", _write_deleted, _read_deleted),
    Asked: ("asked", _write_asked, _read_asked),
    Rendered: ("rendered", _write_rendered, _read_rendered),
    Counter: ("counter", _write_counter, _read_counter),
}
_READERS: Final = {kind: read for kind, _, read in _FORMS.values()}
