"""The two clients of a bucket location.

boto3, whose errors carry S3's own codes, and obstore, which fetches several times as many objects
per second. Both get the same endpoint, keys and timeouts. What is read with them is left to
reader.py, what their errors mean to s3_errors.py.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.session
import obstore.store
from botocore.config import Config
from botocore.configprovider import ConstantProvider
from botocore.exceptions import NoCredentialsError
from obstore.exceptions import BaseError

from fer_batch.errors import ConfigurationError
from fer_batch.settings import Settings
from fer_batch.storage.credentials import find_credentials
from fer_batch.storage.listing_pages import cut_out_entries, drop_malformed_time
from fer_batch.storage.location import BucketLocation
from fer_batch.storage.s3_errors import TRUNCATED_BODY, translate_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_S = 10.0
MAX_ATTEMPTS = 4
CREDENTIALS_LIFETIME = timedelta(minutes=5)
"""How long obstore caches keys before it gets them from boto3, which renews them, again."""

OBSTORE_ERRORS = (BaseError, OSError, ValueError)

OBSTORE_UNSUPPORTED_KEY = re.compile(r"[\x00-\x1f\x7f]|(?:^|/)(?:\.{0,2})(?:/|$)")
"""obstore rejects control characters and empty, `.` and `..` segments, and silently strips slashes
at both ends."""

_HOST_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
"""Names of old buckets also have capitals, underscores and up to 255 characters."""

Answer = TypeVar("Answer")


class Clients:
    """Both clients of one location. Creating them sends no request.

    Raises ConfigurationError for a CA bundle that does not exist, an endpoint that is not a URL
    or has no TLS, and keys that are named but not set; StorageError if there are no keys at all.
    """

    def __init__(self, settings: Settings, location: BucketLocation) -> None:
        ca_bundle = settings.s3_ca_bundle
        if ca_bundle is not None and not ca_bundle.is_file():
            raise ConfigurationError(
                f"the CA bundle {ca_bundle} does not exist", "Correct FER_S3_CA_BUNDLE"
            )
        if "@" in (location.endpoint or ""):
            raise ConfigurationError(
                f"{location.endpoint_setting} holds a user name",
                f"Set {location.credentials_setting} instead",
            )
        if location.is_unencrypted and not settings.s3_allow_http:
            raise ConfigurationError(
                f"the endpoint {location.endpoint} has no TLS: everybody in the network between "
                "could read the images",
                f"Use https:// in {location.endpoint_setting}, or set FER_S3_ALLOW_HTTP=true if "
                "that network is private",
            )
        path_style = settings.s3_path_style or not _fits_in_host_name(location)
        with translate_errors(location):
            self._session = _create_session(settings, location)
            if self._session.get_credentials() is None:
                raise NoCredentialsError
            self.boto = _create_boto_client(self._session, settings, location, path_style)
        endpoint = self.boto.meta.endpoint_url.rstrip("/")
        if not path_style:
            scheme, rest = endpoint.split("://", 1)
            endpoint = f"{scheme}://{location.bucket}.{rest}"
        client_options: dict[str, Any] = {
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=min(CONNECT_TIMEOUT_S, settings.s3_timeout_s)),
            "timeout": timedelta(seconds=settings.s3_timeout_s),
        }
        if ca_bundle is not None:
            client_options["root_certificate"] = ca_bundle.read_bytes()
        self.obstore = obstore.store.S3Store(
            location.bucket,
            # Both names: AWS_ENDPOINT_URL_S3 in the environment would override the first one.
            endpoint=endpoint,
            aws_endpoint_url_s3=endpoint,
            region=settings.s3_region,
            virtual_hosted_style_request=not path_style,
            skip_signature=False,
            client_options=client_options,
            retry_config={
                "max_retries": MAX_ATTEMPTS - 1,
                "retry_timeout": timedelta(seconds=settings.s3_timeout_s),
            },
            credential_provider=self._get_keys,
        )

    def _get_keys(self) -> dict[str, Any]:
        keys = self._session.get_credentials()
        if keys is None:
            raise NoCredentialsError
        frozen = keys.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + CREDENTIALS_LIFETIME,
        }


def retry_truncated(request: Callable[[], Answer]) -> Answer:
    """Return the result of `request`, retried with backoff where an object's body ends early.

    boto3 itself retries refused, unanswered and incomplete responses, but not the reading of a
    body. Raises what the last attempt raised.
    """
    for attempt in range(1, MAX_ATTEMPTS):
        try:
            return request()
        except TRUNCATED_BODY:
            time.sleep(random.uniform(0, 0.25 * 2**attempt))  # noqa: S311
    return request()


def _fits_in_host_name(location: BucketLocation) -> bool:
    """Whether the bucket can be part of the host name, by the same rule as boto3."""
    host = urlsplit(location.endpoint or "").hostname or ""
    # With a dot in the bucket, the certificate does not match; an IP address has no subdomains.
    return (
        _HOST_LABEL.fullmatch(location.bucket) is not None
        and not host.replace(".", "").isdigit()
        and ":" not in host
    )


def _create_session(settings: Settings, location: BucketLocation) -> boto3.Session:
    keys = find_credentials(settings, location.credentials)
    session = botocore.session.Session() if keys is None else _create_isolated_session()
    session.register_component("data_loader", _load_service_models())
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


def _create_isolated_session() -> botocore.session.Session:
    """A session without AWS_PROFILE and the files of ~/.aws, which belong to other tools."""
    session = botocore.session.Session()
    variables = session.get_component("config_store")
    for name, value in (
        ("profile", None),
        ("config_file", os.devnull),
        ("credentials_file", os.devnull),
    ):
        variables.set_config_provider(name, ConstantProvider(value))
    return session


@cache
def _load_service_models() -> Any:
    """boto3's description of S3, read once: it takes nine tenths of the time to create a client."""
    return _create_isolated_session().get_component("data_loader")


def _create_boto_client(
    session: boto3.Session, settings: Settings, location: BucketLocation, path_style: bool
) -> S3Client:
    # AWS_ENDPOINT_URL, AWS_USE_DUALSTACK_ENDPOINT and the like belong to other tools.
    isolation: dict[str, Any] = {"ignore_configured_endpoint_urls": True}
    if location.endpoint:
        isolation |= {"use_dualstack_endpoint": False, "use_fips_endpoint": False}
    config = Config(
        **isolation,
        connect_timeout=min(CONNECT_TIMEOUT_S, settings.s3_timeout_s),
        read_timeout=settings.s3_timeout_s,
        retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
        max_pool_connections=settings.s3_concurrency,
        s3={"addressing_style": "path" if path_style else "virtual"},
        # Servers other than AWS reject the checksums that boto3 adds by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    # True: without AWS_CA_BUNDLE, which belongs to other tools.
    ca_bundle = str(settings.s3_ca_bundle) if settings.s3_ca_bundle else True
    try:
        client = session.client(
            "s3", endpoint_url=location.endpoint, verify=ca_bundle, config=config
        )
    except ValueError:
        raise ConfigurationError(
            f"{location.endpoint!r} is no endpoint",
            f"Correct {location.endpoint_setting}; it is a URL such as https://s3.example.com",
        ) from None
    # With this event pattern it runs before boto3's own handler, which parses the whole page once
    # more to see whether it is an error.
    client.meta.events.register("before-parse.*.ListObjectsV2", cut_out_entries)
    client.meta.events.register("before-parse.*.GetObject", drop_malformed_time)
    return client
