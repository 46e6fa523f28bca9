"""The environment of a scoring process: an allow-list.

A scoring process decodes files that anybody may have written. It gets the settings, the login of
the database, the S3 keys of the facilities of its shard, and the few variables that a process needs
to start. It gets no other secret of the process that starts it, such as a token of the shell or the
keys of other facilities.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from pydantic import SecretStr

from fer_batch.facilities.registry import Facility
from fer_batch.settings import S3Credentials, Settings
from fer_batch.settings_sources import to_environment
from fer_batch.storage.credentials import find_credentials

INHERITED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LANG", "LANGUAGE", "NO_COLOR"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHASHSEED"),
        *("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "ORT_DISABLE_TELEMETRY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "PGSYSCONFDIR", "PGSERVICEFILE", "PGPASSFILE"),
        *("PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLCRL"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("FER_STACK_SERVER", "FER_FAILPOINT", "FER_TEST_SERVERS"),
    }
)
"""Variables that every process may have. Passwords of PostgreSQL belong into FER_DATABASE_URL or
the file of PGPASSFILE."""
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
"""What the AWS credential chain reads. Passed on if a facility of the shard uses the chain."""


def build_environment(
    settings: Settings,
    facilities: Iterable[Facility],
    inherited: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The whole environment of a process that scores these facilities.

    `inherited` is the environment from which the allowed variables are taken; None: this process's.
    """
    names = {facility.credentials for facility in facilities}
    # The file of the settings may hold other secrets, and all settings are variables here.
    environment = {"FER_ENV_FILE": os.devnull}
    for name, value in (os.environ if inherited is None else inherited).items():
        uses_chain = None in names and find_credentials(settings, None) is None
        if (
            name in INHERITED
            or name.startswith(INHERITED_PREFIXES)
            or (uses_chain and name in AWS_CHAIN)
        ):
            environment[name] = value
    return {**environment, **to_environment(_drop_secrets(settings, names))}


def _drop_secrets(settings: Settings, names: set[str | None]) -> Settings:
    """The settings with the database's login and the keys of these names, and no other secret."""
    kept: dict[str, S3Credentials] = {
        name: keys
        for name, keys in settings.s3_credentials.items()
        if name in {each.lower() for each in names if each is not None}
    }
    dropped: dict[str, object] = {
        name: {} if isinstance(value, dict) else None
        for name, value in settings
        if isinstance(value, SecretStr | dict)
    }
    if None in names:
        for name in ("s3_secret_access_key", "s3_session_token"):
            dropped.pop(name, None)
    else:
        dropped["s3_access_key_id"] = None
    dropped.pop("database_url", None)
    return settings.model_copy(update={**dropped, "s3_credentials": kept})
