"""Reads report files from a folder or from S3.

The settings are variables of the API server's environment, with the names and meanings that
fer-batch gives them. What a request may ask for, and what a browser gets, is left to `app`.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

log = logging.getLogger(__name__)

FILE_NAME = re.compile(r"index\.html|[0-9]{4}-[0-9]{2}-[0-9]{2}(\.[a-z0-9-]+)?\.html")
"""The names of report files; fer_batch/reporting/store.py writes no others."""
CREDENTIALS = "FER_S3_CREDENTIALS__REPORT__"
TIMEOUT = timedelta(seconds=20)


class StoreUnavailableError(Exception):
    """The report files cannot be read. The text is for readers of the page: no path, no secret."""


class ReportStore(Protocol):
    """Where the report files are."""

    def read(self, name: str) -> bytes | None:
        """Return the content of the file `name`, which matches FILE_NAME; None if it is missing.

        Raises StoreUnavailableError.
        """


class FolderStore:
    """A folder. Only regular files directly in it are read, and no symbolic links."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            log.warning("the report folder %s cannot be opened: %s", self._folder, error.strerror)
            raise StoreUnavailableError(
                "The report folder does not exist, or the API server may not read it. Check "
                "FER_REPORT_DIR in the environment of the API server."
            ) from None
        try:
            return _read_regular(name, folder)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):  # ELOOP: a symbolic link
                return None
            log.warning("the report %s cannot be read: %s", self._folder / name, error.strerror)
            raise StoreUnavailableError(
                "The report exists, but the API server cannot read it."
            ) from None
        finally:
            os.close(folder)


def _read_regular(name: str, folder: int) -> bytes | None:
    """Return the content of a regular file in an open folder, None for anything else."""
    # Without O_NONBLOCK, opening a named pipe would wait for its writer.
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        with open(file, "rb", closefd=False) as content:
            return content.read()
    finally:
        os.close(file)


class BucketStore:
    """A bucket of S3, below a prefix."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    def read(self, name: str) -> bytes | None:
        try:
            return bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError as error:
            if "NoSuchBucket" not in str(error):
                return None
            reason: Exception = error
        except (BaseError, OSError, ValueError) as error:
            reason = error
        log.warning("the report %s cannot be read from S3: %s", name, reason)
        raise StoreUnavailableError(
            "The report bucket does not answer, does not exist, or may not be read. Check "
            "FER_REPORT_URL and the credentials of reports in the environment of the API server; "
            "its log has the error."
        )


def open_store(environ: Mapping[str, str]) -> ReportStore:
    """Return the store that the variables name: FER_REPORT_URL, else FER_REPORT_DIR.

    Sends no request. Raises StoreUnavailableError if none is set, or one is invalid.
    """
    if url := environ.get("FER_REPORT_URL"):
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
            raise StoreUnavailableError(
                "FER_REPORT_URL in the environment of the API server must be a URL such as "
                "s3://reports/fer."
            )
        return BucketStore(_open_bucket(parts.netloc, parts.path.strip("/"), environ))
    if folder := environ.get("FER_REPORT_DIR"):
        return FolderStore(Path(folder))
    raise StoreUnavailableError(
        "The API server does not know where the reports are. Set FER_REPORT_URL or FER_REPORT_DIR "
        "in its environment, and restart it."
    )


def _open_bucket(bucket: str, prefix: str, environ: Mapping[str, str]) -> S3Store:
    """Return a client for the prefix. Without keys it uses those of AWS's environment or role."""
    keys = {
        name: value
        for name in ("access_key_id", "secret_access_key", "session_token")
        if (value := environ.get(f"{CREDENTIALS}{name.upper()}"))
    }
    if ("access_key_id" in keys) != ("secret_access_key" in keys):
        raise StoreUnavailableError(  # AWS's own keys may be of another account
            f"Only one of {CREDENTIALS}ACCESS_KEY_ID and …SECRET_ACCESS_KEY is set in the "
            "environment of the API server."
        )
    options: dict[str, Any] = {"region": environ.get("FER_S3_REGION") or "us-east-1", **keys}
    client_options: dict[str, Any] = {"timeout": TIMEOUT, "connect_timeout": TIMEOUT}
    if endpoint := environ.get("FER_REPORT_ENDPOINT") or environ.get("FER_S3_ENDPOINT"):
        # Both names: AWS_ENDPOINT_URL_S3 in the environment would override the first one.
        options |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
        client_options["allow_http"] = endpoint.startswith("http://")
    if authority := environ.get("FER_S3_CA_BUNDLE"):
        client_options["root_certificate"] = _read_authority(Path(authority))
    try:
        return S3Store(
            bucket,
            prefix=prefix or None,
            client_options=client_options,
            retry_config={"max_retries": 2, "retry_timeout": TIMEOUT},
            **options,
        )
    except (BaseError, ValueError) as error:
        log.warning("the client for the report bucket cannot be created: %s", error)
        raise StoreUnavailableError(
            "The settings of the report bucket in the environment of the API server are invalid; "
            "its log has the error."
        ) from None


def _read_authority(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        log.warning("FER_S3_CA_BUNDLE: %s: %s", file, error.strerror)
        raise StoreUnavailableError(
            "The API server cannot read the file that FER_S3_CA_BUNDLE names."
        ) from None
