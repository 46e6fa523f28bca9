"""A prefix of a bucket into which files are published: the reports, and the exported data.

It has credentials of its own: those that read images need no permission to write anywhere. The
objects are small, so each is written by one request: a reader sees the former object or the new
one. Images are left to reader.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from fer_batch.errors import ConfigurationError
from fer_batch.settings import Settings
from fer_batch.storage.client import Clients
from fer_batch.storage.credentials import find_credentials
from fer_batch.storage.location import BucketLocation
from fer_batch.storage.s3_errors import translate_errors

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
}


@dataclass(frozen=True, slots=True)
class Publication:
    """What is published: the name of its credentials, with which its settings begin too.

    The credentials `report` are FER_S3_CREDENTIALS__REPORT__ACCESS_KEY_ID and
    …__SECRET_ACCESS_KEY, or the Airflow Connection `fer_s3_report`.
    """

    name: str

    @property
    def url_setting(self) -> str:
        return f"FER_{self.name.upper()}_URL"

    @property
    def endpoint_setting(self) -> str:
        return f"FER_{self.name.upper()}_ENDPOINT"


REPORT = Publication("report")
EXPORT = Publication("export")


class _PublishedLocation(BucketLocation):
    """A location whose errors name the settings of what is published; its credentials tell it."""

    @property
    def bucket_setting(self) -> str:
        return Publication(self.credentials or "").url_setting

    @property
    def endpoint_setting(self) -> str:
        return Publication(self.credentials or "").endpoint_setting


class ObjectFolder:
    """The objects below a URL such as `s3://bucket/prefix`.

    Raises ConfigurationError if the URL has another form, or if the credentials of the publication
    are not set; the methods raise StorageError and StorageUnavailableError. `endpoint` is that of
    the publication; None: that of the images.
    """

    def __init__(
        self, settings: Settings, url: str, publication: Publication, endpoint: str | None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.hostname or parts.query or parts.fragment:
            raise ConfigurationError(
                f"{publication.url_setting} is {url!r}",
                f"Set it to a URL such as s3://{publication.name}s/fer",
            )
        find_credentials(settings, publication.name)  # never those that read images
        self.name = url.rstrip("/")
        self._location = _PublishedLocation(
            parts.netloc, endpoint or settings.s3_endpoint, publication.name
        )
        self._prefix = f"{parts.path.strip('/')}/".lstrip("/")
        self._boto = Clients(settings, self._location).boto

    def write(self, name: str, content: str | bytes) -> None:
        """Write an object whole, or not at all."""
        with translate_errors(self._location):
            self._boto.put_object(
                Bucket=self._location.bucket,
                Key=self._prefix + name,
                Body=content.encode() if isinstance(content, str) else content,
                ContentType=_CONTENT_TYPES[PurePosixPath(name).suffix],
                CacheControl="no-cache",
            )

    def read(self, name: str) -> bytes | None:
        """The content of an object; None if it does not exist."""
        with translate_errors(self._location):
            try:
                answer = self._boto.get_object(
                    Bucket=self._location.bucket, Key=self._prefix + name
                )
            except self._boto.exceptions.NoSuchKey:
                return None
            return answer["Body"].read()

    def list(self, beginning: str = "", *, with_folders: bool = False) -> list[str]:
        """The names of the objects that begin so, sorted; those in folders below only if asked."""
        # The older request: the entries of the newer one are left unparsed (listing_pages.py).
        options: Any = {} if with_folders else {"Delimiter": "/"}
        pages = self._boto.get_paginator("list_objects").paginate(
            Bucket=self._location.bucket, Prefix=self._prefix + beginning, **options
        )
        with translate_errors(self._location):
            keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
        return sorted(key.removeprefix(self._prefix) for key in keys)

    def delete(self, name: str) -> None:
        """Delete an object; one that does not exist is no error."""
        with translate_errors(self._location):
            self._boto.delete_object(Bucket=self._location.bucket, Key=self._prefix + name)


def open_report_folder(settings: Settings, url: str) -> ObjectFolder:
    """The folder of the reports. Raises ConfigurationError as `ObjectFolder`."""
    return ObjectFolder(settings, url, REPORT, settings.report_endpoint)


def open_export_folder(settings: Settings, url: str) -> ObjectFolder:
    """The folder of the exported files. Raises ConfigurationError as `ObjectFolder`."""
    return ObjectFolder(settings, url, EXPORT, settings.export_endpoint)
