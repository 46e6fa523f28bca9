"""The environment of a `fer-batch` command: an allow-list, with the secrets that its task needs.

A worker's environment may hold Airflow's keys, the login of the broker and secrets of other
programs. A command gets the few variables that a process needs to start, the settings `FER_…`, the
login of the database, and of all other secrets only those of its task. Maintenance has a login of
its own, which no other command gets.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from enum import StrEnum

INHERITED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LANG", "LANGUAGE", "NO_COLOR"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHASHSEED"),
        *("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "ORT_DISABLE_TELEMETRY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "PGSYSCONFDIR", "PGSERVICEFILE", "PGPASSFILE"),
        *("PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLCRL"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    }
)
"""Variables that every command may have, as in fer_batch/pipeline/process_environment.py."""
INHERITED_PREFIXES = ("LC_", "COVERAGE_")
AWS_CHAIN = frozenset(
    {
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
        *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
        *("AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        *("AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
        *("AWS_EC2_METADATA_DISABLED", "AWS_EC2_METADATA_SERVICE_ENDPOINT"),
        *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_STS_REGIONAL_ENDPOINTS"),
    }
)
"""What the AWS credential chain reads, which supplies keys of images where none are set."""

DEFAULT_KEYS = frozenset(
    {"FER_S3_ACCESS_KEY_ID", "FER_S3_SECRET_ACCESS_KEY", "FER_S3_SESSION_TOKEN"}
)
CREDENTIALS = "FER_S3_CREDENTIALS"
MAINTENANCE_URL = "FER_MAINTENANCE_DATABASE_URL"
"""Login of the maintenance, where there is no Connection for it."""
DIGEST_SECRETS = ("FER_SMTP_PASSWORD", "FER_CHAT_URLS")


class Secrets(StrEnum):
    """Secrets that a command may need beside the login of the database."""

    IMAGES = "images"
    """Keys that read images."""
    REPORT = "report"
    """Keys that write to FER_REPORT_URL."""
    EXPORT = "export"
    """Keys that write to FER_EXPORT_URL."""
    DIGESTS = "digests"
    """Password of the mail server, and webhooks of chats."""
    ERASURES = "erasures"
    """The secret with which erased images are recognized."""
    MAINTENANCE = "maintenance"
    """The login of the database that may delete what has expired, instead of the nightly one."""


def select_variables(
    inherited: Mapping[str, str], secrets: Collection[Secrets], credentials: Collection[str]
) -> dict[str, str]:
    """Return the variables of a worker that a command may have.

    `credentials` are the names of the S3 credentials that it may use.
    """
    names = {name.upper() for name in credentials}
    selected: dict[str, str] = {}
    for variable, value in inherited.items():
        name = variable.upper()
        if name == CREDENTIALS:
            selected |= _split_credentials(value, names)
        elif (
            variable in INHERITED
            or variable.startswith(INHERITED_PREFIXES)
            or (variable in AWS_CHAIN and Secrets.IMAGES in secrets)
            or (name.startswith("FER_") and _is_allowed(name, secrets, names))
        ):
            selected[variable] = value
    return selected


def _is_allowed(name: str, secrets: Collection[Secrets], credentials: Collection[str]) -> bool:
    """Whether a command may have this variable `FER_…`."""
    # The first is of the containers in docker/, the second of a monitor outside Airflow. The third
    # becomes FER_DATABASE_URL where it is needed.
    if name in ("FER_DB_PASSWORD", "FER_AIRFLOW_PASSWORD", MAINTENANCE_URL):
        return False
    if name == "FER_DATABASE_URL":
        return Secrets.MAINTENANCE not in secrets
    if name in DEFAULT_KEYS:
        return Secrets.IMAGES in secrets
    if name.startswith(f"{CREDENTIALS}__"):
        return name.removeprefix(f"{CREDENTIALS}__").partition("__")[0] in credentials
    if name.startswith(DIGEST_SECRETS):
        return Secrets.DIGESTS in secrets
    if name == "FER_ERASURE_SECRET":
        return Secrets.ERASURES in secrets
    return True


def _split_credentials(text: str, names: Collection[str]) -> dict[str, str]:
    """Return the keys of these names from a JSON of all; an invalid one as it is, to be named."""
    try:
        keys = json.loads(text)
        return {
            f"{CREDENTIALS}__{name.upper()}__{field.upper()}": str(value)
            for name, fields in keys.items()
            for field, value in fields.items()
            if name.upper() in names and value is not None
        }
    except (ValueError, AttributeError):
        return {CREDENTIALS: "invalid"}
