"""A proxy before an S3 service that checks digests as S3 does and lets faults happen on command."""

from tests.s3_proxy.faults import (
    CONFLICT,
    FORBIDDEN,
    INTERNAL_ERROR,
    PRECONDITION_FAILED,
    SLOW_DOWN,
    CutAnswer,
    CutRequest,
    Delay,
    Fault,
    FlipAnswer,
    FlipRequest,
    Hide,
    LoseAnswer,
    Refuse,
)
from tests.s3_proxy.proxy import Injection, S3Proxy, s3_proxy

__all__ = [
    "CONFLICT",
    "FORBIDDEN",
    "INTERNAL_ERROR",
    "PRECONDITION_FAILED",
    "SLOW_DOWN",
    "CutAnswer",
    "CutRequest",
    "Delay",
    "Fault",
    "FlipAnswer",
    "FlipRequest",
    "Hide",
    "Injection",
    "LoseAnswer",
    "Refuse",
    "S3Proxy",
    "s3_proxy",
]
