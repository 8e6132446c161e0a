"""What S3 and botocore say, in the project's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own name for it
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError

from core.errors import Archived, Forbidden, InvalidRange, MillraceError, NotFound, StoreFull, StoreUnavailable

_NO_CREDENTIALS = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    UnauthorizedSSOTokenError,
)
_NO_ANSWER = (ConnectionError, HTTPClientError, IncompleteReadError, ResponseParserError)


class Outage(StoreUnavailable):
    """No answer, a cut one, 5xx or a throttled request, after all attempts. Only this opens the circuit breaker."""


class PreconditionFailed(StoreUnavailable):
    """412: the key is taken."""


class ConditionalConflict(StoreUnavailable):
    """409: somebody else writes the same key at this moment."""


class NoSuchUpload(StoreUnavailable):
    """The multipart upload is gone: aborted, or completed by a request whose answer was lost."""


class Unsupported(StoreUnavailable):
    """501: the service does not know the operation or one of its headers."""


class BeingRestored(StoreUnavailable):
    """409: the archive was asked for the object before."""


class Damaged(StoreUnavailable):
    """The bytes were right here and are wrong there. Sending them again can help, so it is not `Corrupt`."""


DAMAGED_CODES = frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"})
"""How a service says that a body was damaged on its way."""

_BY_CODE: dict[str, type[MillraceError]] = {
    "404": NotFound,  # an answer to HEAD has no body and so no code of its own
    "NoSuchKey": NotFound,
    "NotFound": NotFound,
    "NoSuchBucket": StoreUnavailable,
    "NoSuchUpload": NoSuchUpload,
    "ExpiredToken": Forbidden,
    "InvalidToken": Forbidden,
    "TokenRefreshRequired": Forbidden,
    "InvalidObjectState": Archived,  # 403, but the credentials are good
    "ObjectNotInActiveTierError": Archived,  # the same of the source of a copy
    "RestoreAlreadyInProgress": BeingRestored,
    "GlacierExpeditedRetrievalNotAvailable": StoreUnavailable,  # 503, and yet an answer: no capacity at this moment
    "QuotaExceeded": StoreFull,
    "XMinioStorageFull": StoreFull,
    "NotImplemented": Unsupported,
    **dict.fromkeys(DAMAGED_CODES, Damaged),
}
_BY_STATUS: dict[int, type[MillraceError]] = {
    401: Forbidden,
    403: Forbidden,
    409: ConditionalConflict,
    412: PreconditionFailed,
    416: InvalidRange,
    429: Outage,
    501: Unsupported,
    507: StoreFull,
}


@contextmanager
def translated(subject: str) -> Iterator[None]:
    """No exception of botocore's passes. A missing bucket is `StoreUnavailable` and never `NotFound`, or a typing
    error in the settings would look like lost objects."""
    try:
        yield
    except ClientError as error:
        raise _meaning(error, subject) from error
    except _NO_CREDENTIALS as error:
        raise Forbidden(f"{subject}: {error}") from error
    except _NO_ANSWER as error:
        raise Outage(f"{subject}: {error}") from error
    except BotoCoreError as error:
        raise StoreUnavailable(f"{subject}: {error}") from error


def _meaning(error: ClientError, subject: str) -> MillraceError:
    said = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = said.get("Code", "")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or (Outage if status >= 500 else StoreUnavailable)
    return kind(f"{subject}: {status} {code} {said.get('Message', '')}".rstrip())
