"""What all tables have in common."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, ForeignKey, MetaData, func

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

TIME = DateTime(timezone=True)
NOW = func.now()


def asset_id() -> Column[object]:
    key = ForeignKey("asset.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED")
    return Column("asset_id", key, primary_key=True)
