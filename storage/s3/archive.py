"""Asking an archive (GLACIER, DEEP_ARCHIVE, the archive tiers of INTELLIGENT_TIERING) for an object.

Whether an object can be read is tried and not looked up, since services name their archives in their own ways. Where it
cannot, a look tells whether it was asked for before: asking again, in another tier, would cost once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import Archived, InvalidRange
from storage.interface import Span
from storage.s3.errors import BeingRestored
from storage.s3.objects import Objects
from storage.s3.options import S3Options

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import RestoreRequestTypeDef

UNDER_WAY = 'ongoing-request="true"'


def restore(objects: Objects, key: str, options: S3Options) -> int:
    """Seconds until it can be read, as a rule; 0: now.

    Raises:
        NotFound: there is no such object.
        StoreUnavailable: the service does not answer, or has no capacity for `restore_tier` at this moment.
    """
    if _is_readable(objects, key):
        return 0
    look = objects.head(key)
    if UNDER_WAY not in look.get("Restore", ""):
        wanted: RestoreRequestTypeDef = {"GlacierJobParameters": {"Tier": options.restore_tier}}
        if not look.get("ArchiveStatus"):  # what INTELLIGENT_TIERING restores stays, and its days must not be given
            wanted["Days"] = options.restore_days
        _ask(objects, key, wanted)
    return options.restore_wait


def _is_readable(objects: Objects, key: str) -> bool:
    try:
        with objects.open(key, Span(0, 1)) as body:
            body.read()
    except Archived:
        return False
    except InvalidRange:
        return True  # it is empty
    return True


def _ask(objects: Objects, key: str, wanted: RestoreRequestTypeDef) -> None:
    try:
        with objects.service.call(objects.subject(key)) as client:
            client.restore_object(Bucket=objects.bucket, Key=objects.name(key), RestoreRequest=wanted)
    except (BeingRestored, Archived):
        return  # somebody else asked just now; or it is no archive any more, which the next try shows
