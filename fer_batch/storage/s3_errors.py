"""What boto3's errors mean: a `StorageError` or `StorageUnavailableError` with a hint.

A problem of the location as a whole (credentials, bucket, endpoint) is distinguished from a problem
of one object. Messages never contain a secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError as Urllib3Error

from fer_batch.errors import (
    EndpointUnreachableError,
    FerError,
    StorageError,
    StorageUnavailableError,
)
from fer_batch.storage.location import BucketLocation

BOTO3_ERRORS = (BotoCoreError, ClientError, ResponseParserError, Urllib3Error)
"""What boto3 raises, and what urllib3 below it raises while a body is read."""

TRUNCATED_BODY = (IncompleteReadError, ResponseStreamingError, Urllib3Error)
"""The body of an object ended early."""

_WRONG_KEYS = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_EXPIRED = frozenset({"ExpiredToken", "TokenRefreshRequired"})
_BUSY = frozenset(
    {"RequestTimeout", "RequestTimeoutException", "SlowDown", "Throttling", "ThrottlingException"}
)
_LOCATION_CODES = _WRONG_KEYS | _EXPIRED | {"NoSuchBucket", "RequestTimeTooSkewed"}


@contextmanager
def translate_errors(location: BucketLocation) -> Iterator[None]:
    """Raise what boto3 raises as StorageError or StorageUnavailableError."""
    try:
        yield
    except BOTO3_ERRORS as error:
        raise to_error(location, error) from error


def to_error(location: BucketLocation, error: Exception) -> FerError:
    """Translate boto3's error for this location: what it means and what to do."""
    if isinstance(error, ClientError):
        return _translate_response(location, error)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return StorageError(
            f"there are no keys for {location}", f"Set {location.credentials_setting}"
        )
    if isinstance(error, ProfileNotFound):
        return StorageError(
            f"the keys for {location} cannot be found: {_shorten(error)}",
            f"Correct or unset AWS_PROFILE, or set {location.credentials_setting}",
        )
    if isinstance(error, SSLError):
        return StorageError(
            f"TLS with {location} failed: {_shorten(error)}",
            "Set FER_S3_CA_BUNDLE to the certificate authority that signed the server's "
            f"certificate, or correct {location.endpoint_setting}",
        )
    if isinstance(error, (HTTPClientError, BotoConnectionError, IncompleteReadError, Urllib3Error)):
        is_unreachable = isinstance(error, (BotoConnectionError, ReadTimeoutError))
        kind = EndpointUnreachableError if is_unreachable else StorageUnavailableError
        return kind(
            f"{location} does not answer: {type(error).__name__}",
            f"Check that the server runs and that {location.endpoint_setting} is right",
        )
    if isinstance(error, ResponseParserError):
        return _make_not_s3_error(location)
    return StorageError(
        f"{location} cannot be used: {_shorten(error)}",
        f"Check {location.bucket_setting}, {location.endpoint_setting} and "
        f"{location.credentials_setting}",
    )


def _translate_response(location: BucketLocation, error: ClientError) -> FerError:
    code, status = get_code(error), get_status(error)
    if code == "NoSuchBucket":
        return StorageError(
            f"{location} does not exist", f"Create it, or correct {location.bucket_setting}"
        )
    if code in _WRONG_KEYS:
        return StorageError(
            f"{location} refuses the keys: {code}", f"Correct {location.credentials_setting}"
        )
    if code in _EXPIRED:
        # The keys of a role live as long as its session; a retried task gets new ones.
        return StorageUnavailableError(
            f"{location} reports that the keys have expired: {code}",
            f"Renew {location.credentials_setting}",
        )
    if code == "RequestTimeTooSkewed":
        return StorageError(f"{location} refuses this machine's clock", "Set the clock")
    if status in {301, 307, 308} or code == "IllegalLocationConstraintException":
        return StorageError(f"{location} is in another region: {code}", "Correct FER_S3_REGION")
    if status >= 500 or status == 429 or code in _BUSY:
        return StorageUnavailableError(
            f"{location} answers that it is busy or broken: {status} {code}", "Try again later"
        )
    if status in {401, 403}:
        return StorageError(
            f"{location} denies access: {code}",
            f"Allow listing and reading to the account of {location.credentials_setting}",
        )
    if status == 404 and not code.startswith("NoSuch"):
        return _make_not_s3_error(location)
    return StorageError(
        f"{location} refuses: {status} {code}",
        f"Check {location.bucket_setting} and {location.endpoint_setting}",
    )


def is_location_error(error: Exception) -> bool:
    """Whether the error of one request must be a problem of the location as a whole."""
    if isinstance(error, ClientError):
        return get_code(error) in _LOCATION_CODES
    return isinstance(error, (EndpointConnectionError, ConnectTimeoutError, NoCredentialsError))


def describe_cause(error: Exception) -> str:
    """S3's own code, or the type of the error where there was no response."""
    if isinstance(error, ClientError):
        return f"S3 answers {get_status(error)} {get_code(error)}"[:200]
    return type(error).__name__


def get_status(error: Exception) -> int:
    """The HTTP status of the response, 0 if there was none."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def get_code(error: Exception) -> str:
    """S3's code of the error, empty if there was no response."""
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def _make_not_s3_error(location: BucketLocation) -> FerError:
    return StorageError(
        f"{location} does not answer as an S3 server does", f"Correct {location.endpoint_setting}"
    )


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
