"""What S3 and botocore say, in the project's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    UnauthorizedSSOTokenError,
)

from core.errors import Forbidden, InvalidRange, MillraceError, NotFound, StoreUnavailable

_NO_CREDENTIALS = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    UnauthorizedSSOTokenError,
)


class PreconditionFailed(StoreUnavailable):
    """412: the key is taken."""


class ConditionalConflict(StoreUnavailable):
    """409: somebody else writes the same key at this moment."""


class NoSuchUpload(StoreUnavailable):
    """The multipart upload is gone: aborted, or completed by a request whose answer was lost."""


_BY_CODE: dict[str, type[MillraceError]] = {
    "404": NotFound,  # an answer to HEAD has no body and so no code of its own
    "NoSuchKey": NotFound,
    "NotFound": NotFound,
    "NoSuchUpload": NoSuchUpload,
    "ExpiredToken": Forbidden,
    "InvalidToken": Forbidden,
    "TokenRefreshRequired": Forbidden,
}
_BY_STATUS: dict[int, type[MillraceError]] = {
    401: Forbidden,
    403: Forbidden,
    409: ConditionalConflict,
    412: PreconditionFailed,
    416: InvalidRange,
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
    except BotoCoreError as error:
        raise StoreUnavailable(f"{subject}: {error}") from error


def _meaning(error: ClientError, subject: str) -> MillraceError:
    said = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = said.get("Code", "")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, StoreUnavailable)
    return kind(f"{subject}: {status} {code} {said.get('Message', '')}".rstrip())
