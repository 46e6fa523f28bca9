"""The S3 credentials of a name: of the facilities that have their own, and of what is published."""

from __future__ import annotations

from fer_batch.errors import ConfigurationError
from fer_batch.settings import S3Credentials, Settings


def find_credentials(settings: Settings, name: str | None) -> S3Credentials | None:
    """Return the keys of a credentials name, or the default ones; None: the AWS chain.

    Raises ConfigurationError if the keys of the name are not set.
    """
    if name is not None:
        keys = settings.s3_credentials.get(name.lower())
        if keys is None:
            raise ConfigurationError(
                f"S3 credentials {name!r} are not set",
                f"Set FER_S3_CREDENTIALS__{name.upper()}__ACCESS_KEY_ID and "
                f"…__SECRET_ACCESS_KEY, or the Airflow Connection fer_s3_{name}",
            )
        return keys
    if settings.s3_access_key_id is None or settings.s3_secret_access_key is None:
        return None
    return S3Credentials(
        access_key_id=settings.s3_access_key_id,
        secret_access_key=settings.s3_secret_access_key,
        session_token=settings.s3_session_token,
    )
