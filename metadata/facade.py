"""The facade of this room: one object for everything the database knows.

Every method of every part is one transaction and hands out frozen values; nothing of SQLAlchemy leaves the room. Any
call may end with DatabaseUnavailable, and a write that does may have happened: read again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from core.settings import Settings, require_url
from database.transactions import Database
from metadata import times
from metadata.assets.assets import Assets
from metadata.blobs.blobs import Blobs
from metadata.blobs.demotion import Demotion
from metadata.blobs.inventory import Inventory
from metadata.blobs.placing import Placing
from metadata.blobs.promotion import Tiers
from metadata.blobs.repairs import Repairs
from metadata.blobs.restore import Restored
from metadata.jobs import Jobs
from metadata.journal.outbox import Outbox
from metadata.journal.rebuild import Rebuilding
from metadata.readers import Readers
from metadata.retention import Retention
from metadata.rules import PlacementRules
from metadata.stores import Stores
from metadata.turns import Turns
from metadata.uploads.failures import Failures
from metadata.uploads.uploads import Uploads
from metadata.variants.variants import Variants


@dataclass(frozen=True)
class Metadata:
    database: Database
    blobs: Blobs
    repairs: Repairs
    stores: Stores
    tiers: Tiers
    demotion: Demotion
    jobs: Jobs
    assets: Assets
    variants: Variants
    uploads: Uploads
    failures: Failures
    retention: Retention
    inventory: Inventory
    outbox: Outbox
    turns: Turns
    restored: Restored
    rebuilding: Rebuilding
    readers: Readers
    rules: PlacementRules
    placing: Placing

    @classmethod
    def open(cls, settings: Settings, *, pool_size: int, deadline_seconds: float) -> Metadata:
        """Connects to nothing yet.

        Raises:
            Misconfigured: there is no database URL, or it is not one of PostgreSQL.
        """
        url = require_url(settings.database_url, "database_url")
        return cls.of(Database(url, pool_size=pool_size, deadline_seconds=deadline_seconds))

    @classmethod
    def of(cls, database: Database) -> Metadata:
        return cls(
            database,
            Blobs(database),
            Repairs(database),
            Stores(database),
            Tiers(database),
            Demotion(database),
            Jobs(database),
            Assets(database),
            Variants(database),
            Uploads(database),
            Failures(database),
            Retention(database),
            Inventory(database),
            Outbox(database),
            Turns(database),
            Restored(database),
            Rebuilding(database),
            Readers(database),
            PlacementRules(database),
            Placing(database),
        )

    def ping(self) -> None:
        """
        Raises:
            DatabaseUnavailable: there is no PostgreSQL that answers, or it was never migrated.
        """
        self.database.ping()

    def now(self) -> datetime:
        """PostgreSQL's time, which is one for all hosts."""
        return self.database.read(times.now)

    def close(self) -> None:
        self.database.close()
