"""A prefix of a bucket into which text files are published, such as the reports.

It has credentials of its own: those that read images need no permission to write anywhere. The
objects are few and small, so each is written by one request. Images are left to reader.py.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from fer_batch.errors import ConfigurationError
from fer_batch.settings import Settings
from fer_batch.storage.client import Clients
from fer_batch.storage.location import BucketLocation
from fer_batch.storage.s3_errors import translate_errors

CREDENTIALS = "report"
"""The name of the credentials: FER_S3_CREDENTIALS__REPORT__ACCESS_KEY_ID and …__SECRET_ACCESS_KEY,
or the Airflow Connection `fer_s3_report`."""


class _ReportLocation(BucketLocation):
    """A location whose errors name the settings of reports."""

    @property
    def bucket_setting(self) -> str:
        return "FER_REPORT_URL"

    @property
    def endpoint_setting(self) -> str:
        return "FER_REPORT_ENDPOINT"


class ObjectFolder:
    """The objects below a URL such as `s3://bucket/prefix`.

    Raises ConfigurationError if the URL has another form, or if the credentials `report` are not
    set; the methods raise StorageError and StorageUnavailableError.
    """

    def __init__(self, settings: Settings, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.hostname or parts.query or parts.fragment:
            raise ConfigurationError(
                f"FER_REPORT_URL is {url!r}", "Set it to a URL such as s3://reports/fer"
            )
        settings.get_credentials(CREDENTIALS)  # never those that read images
        self._location = _ReportLocation(
            parts.netloc, settings.report_endpoint or settings.s3_endpoint, CREDENTIALS
        )
        self._prefix = f"{parts.path.strip('/')}/".lstrip("/")
        self._boto = Clients(settings, self._location).boto

    def write(self, name: str, html: str) -> None:
        """Write an object whole, or not at all."""
        with translate_errors(self._location):
            self._boto.put_object(
                Bucket=self._location.bucket,
                Key=self._prefix + name,
                Body=html.encode("utf-8"),
                ContentType="text/html; charset=utf-8",
                CacheControl="no-cache",
            )

    def list(self, beginning: str = "") -> list[str]:
        """The names of the objects that begin so, sorted, without those in folders below."""
        # The older request: the entries of the newer one are left unparsed (listing_pages.py).
        pages = self._boto.get_paginator("list_objects").paginate(
            Bucket=self._location.bucket, Prefix=self._prefix + beginning, Delimiter="/"
        )
        with translate_errors(self._location):
            keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
        return sorted(key.removeprefix(self._prefix) for key in keys)

    def delete(self, name: str) -> None:
        """Delete an object; one that does not exist is no error."""
        with translate_errors(self._location):
            self._boto.delete_object(Bucket=self._location.bucket, Key=self._prefix + name)
