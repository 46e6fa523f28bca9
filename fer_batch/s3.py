"""Clients of S3 and what its refusals mean.

Two clients of the same place: boto3, whose errors carry S3's own codes, and obstore, which
fetches several times as many objects per second. Both get the same endpoint, keys and time
limits from here. What is done with them is storage.py.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.session
import obstore.store
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError as Urllib3Error

from fer_batch.errors import (
    ConfigurationError,
    FerError,
    StorageError,
    StorageSilentError,
    StorageUnavailableError,
)
from fer_batch.registry import Facility
from fer_batch.s3_pages import lift_entries
from fer_batch.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_S = 10.0
ATTEMPTS = 4
KEYS_LIVE = timedelta(minutes=5)
"""How long obstore keeps keys before it asks boto3, which renews them, again."""

BOTO3_ERRORS = (BotoCoreError, ClientError, ResponseParserError, Urllib3Error)
"""What boto3 raises, and what escapes from under it while a body is read."""

_CUT_SHORT = (IncompleteReadError, Urllib3Error)

Answer = TypeVar("Answer")

_BAD_KEYS = frozenset(
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


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket at an endpoint, and whose it is."""

    bucket: str
    endpoint: str | None
    credentials: str | None = None
    facility: Facility | None = None

    @classmethod
    def of(cls, settings: Settings, facility: Facility) -> Place:
        """Where a facility's images are."""
        return cls(
            bucket=facility.bucket or settings.s3_bucket,
            endpoint=facility.endpoint or settings.s3_endpoint,
            credentials=facility.credentials,
            facility=facility,
        )

    def __str__(self) -> str:
        owner = f" (facility {self.facility.facility_id})" if self.facility else ""
        return f"bucket {self.bucket!r} at {self.endpoint or 'AWS'}{owner}"

    @property
    def bucket_setting(self) -> str:
        has_own = self.facility is not None and self.facility.bucket is not None
        return "the facility's `bucket`" if has_own else "FER_S3_BUCKET"

    @property
    def endpoint_setting(self) -> str:
        has_own = self.facility is not None and self.facility.endpoint is not None
        return "the facility's `endpoint`" if has_own else "FER_S3_ENDPOINT"

    @property
    def keys_setting(self) -> str:
        if self.credentials is None:
            return "FER_S3_ACCESS_KEY_ID and FER_S3_SECRET_ACCESS_KEY"
        name = f"FER_S3_CREDENTIALS__{self.credentials.upper()}__"
        return f"{name}ACCESS_KEY_ID and {name}SECRET_ACCESS_KEY"


class Clients:
    """Both clients of one place. Opening them sends no request.

    Raises ConfigurationError for a CA bundle that does not exist, an endpoint that is no URL
    and keys that are named but not set, StorageError if there are no keys at all.
    """

    def __init__(self, settings: Settings, place: Place) -> None:
        ca_bundle = settings.s3_ca_bundle
        if ca_bundle is not None and not ca_bundle.is_file():
            raise ConfigurationError(
                f"the CA bundle {ca_bundle} does not exist", "Correct FER_S3_CA_BUNDLE"
            )
        if "@" in (place.endpoint or ""):
            raise ConfigurationError(
                f"{place.endpoint_setting} holds a user name", f"Set {place.keys_setting} instead"
            )
        path_style = settings.s3_path_style or not _fits_into_host_name(place)
        with translated_errors(place):
            self._session = _session(settings, place)
            if self._session.get_credentials() is None:
                raise NoCredentialsError
            self.boto = _boto_client(self._session, settings, place, path_style)
        endpoint = self.boto.meta.endpoint_url.rstrip("/")
        if not path_style:
            scheme, rest = endpoint.split("://", 1)
            endpoint = f"{scheme}://{place.bucket}.{rest}"
        client_options: dict[str, Any] = {
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=min(CONNECT_TIMEOUT_S, settings.s3_timeout_s)),
            "timeout": timedelta(seconds=settings.s3_timeout_s),
        }
        if ca_bundle is not None:
            client_options["root_certificate"] = ca_bundle.read_bytes()
        self.obstore = obstore.store.S3Store(
            place.bucket,
            # Both names: the first loses against AWS_ENDPOINT_URL_S3 in the environment.
            endpoint=endpoint,
            aws_endpoint_url_s3=endpoint,
            region=settings.s3_region,
            virtual_hosted_style_request=not path_style,
            skip_signature=False,
            client_options=client_options,
            retry_config={
                "max_retries": ATTEMPTS - 1,
                "retry_timeout": timedelta(seconds=settings.s3_timeout_s),
            },
            credential_provider=self._keys,
        )

    def _keys(self) -> dict[str, Any]:
        keys = self._session.get_credentials()
        if keys is None:
            raise NoCredentialsError
        frozen = keys.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + KEYS_LIVE,
        }


def asked_again(ask: Callable[[], Answer]) -> Answer:
    """What `ask` brings, asked again after a wait where an object's body is cut short.

    boto3 itself repeats what was refused, not answered, or is half a listing, but not the
    reading of a body. Raises what `ask` raised the last time.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return ask()
        except _CUT_SHORT:
            time.sleep(random.uniform(0, 0.25 * 2**attempt))  # noqa: S311
    return ask()


@contextmanager
def translated_errors(place: Place) -> Iterator[None]:
    """Raise what boto3 raises as StorageError or StorageUnavailableError."""
    try:
        yield
    except BOTO3_ERRORS as error:
        raise in_words(place, error) from error


def in_words(place: Place, error: Exception) -> FerError:
    """What boto3's error means for this place, and what to do. It never holds a secret."""
    if isinstance(error, ClientError):
        return _answer_in_words(place, error)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return StorageError(f"there are no keys for {place}", f"Set {place.keys_setting}")
    if isinstance(error, SSLError):
        return StorageError(
            f"TLS with {place} failed: {_short(error)}",
            "Set FER_S3_CA_BUNDLE to the authority that signed the server's certificate, or "
            f"correct {place.endpoint_setting}",
        )
    if isinstance(error, (HTTPClientError, BotoConnectionError, IncompleteReadError, Urllib3Error)):
        is_silent = isinstance(error, (BotoConnectionError, ReadTimeoutError))
        kind = StorageSilentError if is_silent else StorageUnavailableError
        return kind(
            f"{place} does not answer: {type(error).__name__}",
            f"Check that the server runs and that {place.endpoint_setting} is right",
        )
    if isinstance(error, ResponseParserError):
        return _no_s3(place)
    return StorageError(
        f"{place} cannot be used: {_short(error)}",
        f"Check {place.bucket_setting}, {place.endpoint_setting} and {place.keys_setting}",
    )


def _answer_in_words(place: Place, error: ClientError) -> FerError:
    code, status = _code(error), status_of(error)
    if code == "NoSuchBucket":
        return StorageError(
            f"{place} does not exist", f"Create it, or correct {place.bucket_setting}"
        )
    if code in _BAD_KEYS:
        return StorageError(f"{place} refuses the keys: {code}", f"Correct {place.keys_setting}")
    if code in _EXPIRED:
        # Of a role they live as long as its session; each task gets new ones.
        return StorageUnavailableError(
            f"{place} says that the keys have expired: {code}", f"Renew {place.keys_setting}"
        )
    if code == "RequestTimeTooSkewed":
        return StorageError(f"{place} refuses this machine's clock", "Set the clock")
    if status in {301, 307, 308} or code == "IllegalLocationConstraintException":
        return StorageError(f"{place} is in another region: {code}", "Correct FER_S3_REGION")
    if status >= 500 or status == 429 or code in _BUSY:
        return StorageUnavailableError(
            f"{place} answers that it is busy or broken: {status} {code}", "Try again later"
        )
    if status in {401, 403}:
        return StorageError(
            f"{place} denies access: {code}",
            f"Allow listing and reading to the account of {place.keys_setting}",
        )
    if status == 404 and not code.startswith("NoSuch"):
        return _no_s3(place)
    return StorageError(
        f"{place} refuses: {status} {code}",
        f"Check {place.bucket_setting} and {place.endpoint_setting}",
    )


def is_of_the_place(error: Exception) -> bool:
    """Whether an error of one object must be the fault of the place as a whole."""
    if isinstance(error, ClientError):
        is_known = _code(error) in _BAD_KEYS | _EXPIRED | {"NoSuchBucket", "RequestTimeTooSkewed"}
        return is_known or status_of(error) in {301, 307, 308, 401, 404}
    return isinstance(error, (EndpointConnectionError, ConnectTimeoutError, NoCredentialsError))


def cause(error: Exception) -> str:
    """S3's own code, or the kind of error where there was no answer: a few words."""
    if isinstance(error, ClientError):
        return f"S3 answers {status_of(error)} {_code(error)}"[:200]
    return type(error).__name__


def status_of(error: Exception) -> int:
    """The HTTP status of an answer, 0 if there was none."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _no_s3(place: Place) -> FerError:
    return StorageError(
        f"{place} does not answer as an S3 server does", f"Correct {place.endpoint_setting}"
    )


def _fits_into_host_name(place: Place) -> bool:
    """Whether the bucket can stand before the endpoint's host, as boto3 sees it as well."""
    host = urlsplit(place.endpoint or "").hostname or ""
    # A dot in the bucket breaks the certificate's host name; nothing stands before an address.
    return "." not in place.bucket and not host.replace(".", "").isdigit() and ":" not in host


def _session(settings: Settings, place: Place) -> boto3.Session:
    keys = settings.credentials_for(place.credentials)
    session = botocore.session.Session()
    session.register_component("data_loader", _service_models())
    if keys is None:
        return boto3.Session(botocore_session=session, region_name=settings.s3_region)
    token = keys.session_token
    return boto3.Session(
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_access_key.get_secret_value(),
        aws_session_token=token.get_secret_value() if token else None,
        region_name=settings.s3_region,
        botocore_session=session,
    )


@cache
def _service_models() -> Any:
    """boto3's description of S3, read once: nine tenths of the time of opening a client."""
    return botocore.session.Session().get_component("data_loader")


def _boto_client(
    session: boto3.Session, settings: Settings, place: Place, path_style: bool
) -> S3Client:
    config = Config(
        connect_timeout=min(CONNECT_TIMEOUT_S, settings.s3_timeout_s),
        read_timeout=settings.s3_timeout_s,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=settings.s3_concurrency,
        s3={"addressing_style": "path" if path_style else "virtual"},
        # Servers other than AWS stumble over the checksums that boto3 adds by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    ca_bundle = str(settings.s3_ca_bundle) if settings.s3_ca_bundle else None
    try:
        client = session.client("s3", endpoint_url=place.endpoint, verify=ca_bundle, config=config)
    except ValueError:
        raise ConfigurationError(
            f"{place.endpoint!r} is no endpoint",
            f"Correct {place.endpoint_setting}; it is a URL such as https://s3.example.com",
        ) from None
    # By this pattern it comes before boto3's own handler, which reads the page once more to see
    # whether it is an error.
    client.meta.events.register("before-parse.*.ListObjectsV2", lift_entries)
    return client


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
