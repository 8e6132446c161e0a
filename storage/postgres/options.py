"""The settings of a store in PostgreSQL."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import ByteSize, ConfigDict, Field, SecretStr, field_validator

from core.errors import Misconfigured
from core.sections import KIB, MIB
from database.engine import parse_url
from storage.options import Deployment, StoreOptions


class PostgresOptions(StoreOptions):
    model_config = ConfigDict(serialize_by_alias=True)

    kind: Literal["postgres"] = "postgres"
    url: SecretStr | None = None
    """Default: `database_url`, the database of the metadata."""
    schema_name: str = Field(default="millrace_objects", alias="schema")
    """Made at the first use. Stores of different schemas share a database and do not see each other."""
    chunk_size: ByteSize = Field(default=ByteSize(256 * KIB), ge=KIB, le=4 * MIB)
    """Of new objects: each keeps the size that it was written with."""
    large_object_threshold: ByteSize | None = Field(default=None, ge=0)
    """Bodies above this size become large objects (`pg_largeobject`) instead of rows. Default: none does."""
    pool_size: int = Field(default=4, ge=1, le=100)
    """Connections of a process for everything that is one exchange with the server."""
    pool_timeout: float = Field(default=5, gt=0)
    """Seconds that a call waits for one of them."""
    operation_timeout: float = Field(default=30, gt=0)
    """Seconds for one exchange; a transfer is many, and may take as long as its bytes move."""
    reader_snapshots: int = Field(default=2, ge=0, le=100)
    """Further connections of a process for readers of more than 1 MiB, who keep what they opened though it is deleted
    meanwhile. Without one a reader reads on, and a deletion ends it with `NotFound`."""
    snapshot_seconds: float = Field(default=60, gt=0)
    """So long a reader keeps its snapshot at most: an old one keeps the server from cleaning up."""
    snapshot_idle_seconds: float = Field(default=10, gt=0)
    """Or so long, when it asks for nothing."""
    unfinished_timeout: float = Field(default=86_400, gt=0)
    """Seconds without a byte after which an unfinished object is nobody's and is removed."""

    @field_validator("url")
    @classmethod
    def _of_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                parse_url(value, "this")
            except Misconfigured as fault:
                raise ValueError(fault.detail) from None
        return value

    @field_validator("schema_name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", value):
            raise ValueError("small letters, digits and `_`, not beginning with a digit, at most 63")
        if value.startswith("pg_") or value == "information_schema":
            raise ValueError("this name is PostgreSQL's own")
        return value

    def objection(self, deployment: Deployment) -> str | None:
        if self.url is None and deployment.database_url is None:
            return "url: missing, and there is no database_url that could stand for it"
        return None

    def completed(self, deployment: Deployment) -> Self:
        return self if self.url else self.model_copy(update={"url": deployment.database_url})
