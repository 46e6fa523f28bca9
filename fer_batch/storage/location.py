"""Where images are: bucket, endpoint and credentials, and the settings that configure them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from fer_batch.facilities.registry import Facility
from fer_batch.settings import Settings


@dataclass(frozen=True, slots=True)
class BucketLocation:
    """A bucket at an endpoint, with the name of its credentials and the facility that owns it."""

    bucket: str
    endpoint: str | None
    credentials: str | None = None
    facility: Facility | None = None

    @classmethod
    def from_facility(cls, settings: Settings, facility: Facility) -> BucketLocation:
        """Where a facility's images are."""
        return cls(
            bucket=facility.bucket or settings.s3_bucket,
            endpoint=facility.endpoint or settings.s3_endpoint,
            credentials=facility.credentials,
            facility=facility,
        )

    @property
    def is_unencrypted(self) -> bool:
        """Whether the images pass a network without TLS."""
        url = urlsplit(self.endpoint or "")
        host = url.hostname or ""
        is_loopback = host == "localhost" or host.endswith(".localhost")
        with suppress(ValueError):
            is_loopback |= ip_address(host).is_loopback
        return url.scheme == "http" and not is_loopback

    def __str__(self) -> str:
        owner = f" (facility {self.facility.facility_id})" if self.facility else ""
        return f"bucket {self.bucket!r} at {self.endpoint or 'AWS'}{owner}"

    @property
    def bucket_setting(self) -> str:
        """The setting that names the bucket, for error messages."""
        is_overridden = self.facility is not None and self.facility.bucket is not None
        return "the facility's `bucket`" if is_overridden else "FER_S3_BUCKET"

    @property
    def endpoint_setting(self) -> str:
        """The setting that names the endpoint, for error messages."""
        is_overridden = self.facility is not None and self.facility.endpoint is not None
        return "the facility's `endpoint`" if is_overridden else "FER_S3_ENDPOINT"

    @property
    def credentials_setting(self) -> str:
        """The settings that hold the keys, for error messages."""
        if self.credentials is None:
            return "FER_S3_ACCESS_KEY_ID and FER_S3_SECRET_ACCESS_KEY"
        name = f"FER_S3_CREDENTIALS__{self.credentials.upper()}__"
        return f"{name}ACCESS_KEY_ID and {name}SECRET_ACCESS_KEY"
