"""All settings of fer-batch as one typed object.

A setting is read from the environment (`FER_…`), else from the file `.env` in the working directory
(or the file that `FER_ENV_FILE` names), else it has its default. Nothing else in the package reads
settings from the environment. Reading them, and handing them to a child process, is left to
settings_sources.py.
"""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from fer_batch.concurrency import count_cpus

_MIN_SECRET_CHARACTERS = 32


class S3Credentials(BaseModel):
    """Keys of one S3 account, for facilities whose images are in a separate account."""

    model_config = ConfigDict(extra="forbid")

    access_key_id: str
    secret_access_key: SecretStr
    session_token: SecretStr | None = None


class Settings(BaseSettings):
    """The settings and their defaults. Names include the units."""

    model_config = SettingsConfigDict(
        env_prefix="FER_",
        env_file_encoding="utf-8-sig",  # Windows editors put a byte-order mark at the beginning
        env_nested_delimiter="__",
        env_ignore_empty=True,  # FER_S3_ENDPOINT= in a compose file counts as unset
        extra="ignore",
        frozen=True,
    )

    database_url: SecretStr | None = Field(
        default=None, description="PostgreSQL, as postgresql://user:password@host:port/database"
    )
    facilities_file: Path = Field(
        default=Path("config/facilities.toml"), description="The facility registry"
    )

    strict_registry_from: date = Field(
        default=date(2027, 6, 1),
        description="From this day on, facilities whose entry lacks audience, jurisdiction, "
        "notice_day or assessment_day are not read; before, this is a finding",
    )

    s3_bucket: str = Field(
        default="fer-images", description="Bucket of the facilities that set no `bucket`"
    )
    s3_endpoint: str | None = Field(default=None, description="URL of an S3 server; unset: AWS")
    s3_region: str = Field(default="us-east-1", description="Region of the bucket")
    s3_path_style: bool = Field(
        default=True,
        description="true: bucket in the path (MinIO, SeaweedFS); false: in the host name",
    )
    s3_allow_http: bool = Field(
        default=False,
        description="true: also use endpoints without TLS (http://) on other machines, whose "
        "network then sees keys' signatures and faces",
    )
    s3_ca_bundle: Path | None = Field(
        default=None, description="PEM file with the authority that signed the server's certificate"
    )
    s3_access_key_id: str | None = Field(
        default=None, description="Access key; unset: the AWS credential chain"
    )
    s3_secret_access_key: SecretStr | None = Field(default=None, description="Secret key")
    s3_session_token: SecretStr | None = Field(default=None, description="Session token")
    s3_credentials: dict[str, S3Credentials] = Field(
        default_factory=dict,
        description="Credentials by name, as FER_S3_CREDENTIALS__NAME__ACCESS_KEY_ID and "
        "…__SECRET_ACCESS_KEY",
    )
    s3_timeout_s: float = Field(default=30.0, gt=0, description="Time limit of one S3 request")
    s3_concurrency: int = Field(default=48, ge=1, le=512, description="Concurrent fetches")

    model_card: Path | None = Field(
        default=None,
        description="Card of the CNN to use; unset: the promoted CNN, else the shipped one",
    )
    detector_file: Path | None = Field(
        default=None, description="YuNet as an ONNX file; unset: the shipped file"
    )

    max_image_bytes: int = Field(
        default=20_000_000, gt=0, description="Larger images get the outcome too_large"
    )
    max_image_pixels: int = Field(
        default=40_000_000, gt=0, description="Images with more pixels get the outcome too_large"
    )
    min_image_px: int = Field(
        default=16,
        gt=0,
        description="Images whose shorter side is smaller get the outcome too_small",
    )
    min_face_px: int = Field(
        default=24, gt=0, description="Smaller faces in a frame are not counted"
    )

    threads: int = Field(
        default_factory=lambda: min(4, count_cpus()),
        ge=1,
        description="Threads of ONNX Runtime, OpenCV and BLAS in one scoring process; "
        "unset: the number of CPUs that the process may use, at most 4",
    )
    chunk_images: int = Field(default=1024, ge=1, le=65536, description="Images per transaction")
    shard_images: int = Field(default=20_000, ge=1, description="Target size of a shard, in crops")
    max_shards: int = Field(
        default=64, ge=1, le=1024, description="Maximum number of shards of a run"
    )
    time_left_s: float | None = Field(
        default=None,
        description="Time left for the calling Airflow task, set by the DAG; upper limit of "
        "FER_SCORE_DEADLINE_S and FER_STATEMENT_TIMEOUT_S",
    )
    score_deadline_s: float = Field(
        default=3600.0, gt=0, validate_default=True, description="Time limit of one shard"
    )
    score_memory_mb: int = Field(
        default=1500, ge=200, description="Memory limit (resident) of a scoring process"
    )
    sandbox: Literal["prefer", "require"] = Field(
        default="prefer",
        description="Confinement of the processes that decode images. prefer: as far as the kernel "
        "can; require: decode nothing where a part is missing",
    )
    decode_memory_mb: int | None = Field(
        default=None,
        ge=50,
        description="Memory for the pixels that the decoders of a scoring process hold at once; "
        "unset: half of the memory, divided by the scoring processes for which there are CPUs",
    )
    statement_timeout_s: float = Field(
        default=300.0, gt=0, validate_default=True, description="Time limit of one SQL statement"
    )
    retention_days: int = Field(
        default=400,
        ge=5,  # nights list a day again until then, and publish an incomplete one in the last
        le=36_500,
        description="Days for which `fer-batch maintain` keeps the rows per image and face; at "
        "least 5, because a night also scores late images of the 3 days before its own",
    )
    summary_retention_days: int = Field(
        default_factory=lambda data: max(1095, data.get("retention_days", 0)),
        ge=1,
        le=36_500,
        description="Days for which it keeps summaries, changes, audits and exports; at least "
        "FER_RETENTION_DAYS; unset: 1095, or FER_RETENTION_DAYS if that is longer",
    )
    finding_retention_days: int = Field(
        default=400,
        ge=31,
        le=36_500,
        description="Days for which it keeps findings that are closed, after their last day",
    )
    run_retention_days: int = Field(
        default_factory=lambda data: max(400, data.get("retention_days", 0)),
        ge=31,
        le=36_500,
        description="Days for which it keeps records of runs, listings, finished nights and sent "
        "digests; at least FER_RETENTION_DAYS; unset: 400, or FER_RETENTION_DAYS if that is longer",
    )
    report_retention_days: int = Field(
        default=400, ge=1, le=36_500, description="Days for which it keeps the report of a day"
    )
    temporary_file_days: int = Field(
        default=7,
        ge=1,
        le=365,
        description="Days after which it deletes temporary files that ended processes left",
    )
    airflow_retention_days: int = Field(
        default=200,
        ge=1,
        le=36_500,
        description="Days for which `airflow db clean` is to keep Airflow's history; `fer-batch "
        "check` warns if it is overdue. The AI Act wants logs for at least six months",
    )
    audit_days: int = Field(
        default=180,
        ge=1,
        le=3650,
        description="Days for which a finished audit corrects the summaries",
    )
    erasure_log: Path = Field(
        default=Path("erasures.jsonl"),
        description="File to which `fer-batch erase` appends each erasure, without keys, for "
        "`erase --replay` after a restore. Keep it outside the database",
    )
    erasure_secret: SecretStr | None = Field(
        default=None,
        description="Secret with which erased images are recorded, at least 32 characters, as of "
        "`openssl rand -hex 32`. Do not change or lose it; keep a copy apart from the database",
    )

    alert_min_faces: int = Field(
        default=100,
        ge=30,
        description="Alerts are about days and weeks with at least so many faces",
    )
    alert_min_sessions: int = Field(
        default=10, ge=10, description="And at least so many sessions, where they are known"
    )
    alert_below_days: int = Field(
        default=3,
        ge=1,
        description="Days in FER_ALERT_BELOW_WINDOW_DAYS on which the happy rate must be clearly "
        "below the target for an alert",
    )
    alert_below_window_days: int = Field(
        default=7, ge=1, le=28, validate_default=True, description="See FER_ALERT_BELOW_DAYS"
    )
    alert_below_weeks: int = Field(
        default=2, ge=1, description="As FER_ALERT_BELOW_DAYS, for facilities that publish by week"
    )
    alert_below_window_weeks: int = Field(
        default=4, ge=1, le=8, validate_default=True, description="See FER_ALERT_BELOW_WEEKS"
    )
    alert_spread_factor: float = Field(
        default=4.0,
        gt=0,
        allow_inf_nan=False,
        description="A share is unusual if it is so many standard deviations away from the usual",
    )
    alert_min_difference: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="And if it differs from the usual by at least this, as 0.05 for 5 points",
    )
    alert_drift_index: float = Field(
        default=0.25,
        gt=0,
        allow_inf_nan=False,
        description="The faces differ from those of the audit if the population stability index of "
        "a probability or of their size is larger",
    )
    alert_drift_difference: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="And if the share that is called neither, or not scored for one reason, "
        "differs from that of the audit by more than this, as 0.1 for 10 points",
    )

    report_dir: Path = Field(default=Path("reports"), description="Folder of the reports")
    report_url: str | None = Field(
        default=None,
        description="Also publish the reports to S3, as s3://bucket/prefix, with the credentials "
        "`report`: FER_S3_CREDENTIALS__REPORT__ACCESS_KEY_ID and …__SECRET_ACCESS_KEY",
    )
    report_endpoint: str | None = Field(
        default=None, description="URL of the S3 server of FER_REPORT_URL; unset: FER_S3_ENDPOINT"
    )
    report_link: str | None = Field(
        default=None,
        description="Address under which people open the reports, such as "
        "https://airflow.example.com/satisfaction; digests link to it",
    )
    subscriptions_file: Path | None = Field(
        default=None,
        description="Who gets which digest; unset: subscriptions.toml next to FER_FACILITIES_FILE, "
        "if it exists",
    )
    smtp_host: str | None = Field(default=None, description="Mail server that sends the digests")
    smtp_port: int | None = Field(
        default=None, ge=1, le=65535, description="Its port; unset: 587, tls 465, none 25"
    )
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="Encryption of mail: starttls, tls, or none"
    )
    smtp_user: str | None = Field(default=None, description="Login of the mail server")
    smtp_password: SecretStr | None = Field(default=None, description="Its password")
    smtp_from: str | None = Field(
        default=None, description="Sender of the digests, such as fer-batch@example.com"
    )
    smtp_ca_bundle: Path | None = Field(
        default=None,
        description="PEM file with the authority that signed the mail server's certificate",
    )
    chat_urls: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="Webhooks of chats by name, as FER_CHAT_URLS__NAME",
    )
    incident_to: str | None = Field(
        default=None,
        description="Mail addresses, separated by commas, that are told of failed and late runs "
        "and of new findings",
    )
    incident_chats: str | None = Field(
        default=None,
        description="Names of chats of FER_CHAT_URLS, separated by commas, that are told of the "
        "same",
    )
    airflow_url: str | None = Field(
        default=None,
        description="URL of Airflow, such as https://airflow.example.com; `fer-batch freshness` "
        "then also checks its DAGs and its scheduler",
    )
    airflow_user: str | None = Field(default=None, description="User of Airflow who may read DAGs")
    airflow_password: SecretStr | None = Field(default=None, description="That user's password")
    export_dir: Path | None = Field(
        default=None, description="Folder of the exported Parquet files; unset: none"
    )
    export_url: str | None = Field(
        default=None,
        description="Also export to S3, as s3://bucket/prefix, with the credentials `export`: "
        "FER_S3_CREDENTIALS__EXPORT__ACCESS_KEY_ID and …__SECRET_ACCESS_KEY",
    )
    export_endpoint: str | None = Field(
        default=None, description="URL of the S3 server of FER_EXPORT_URL; unset: FER_S3_ENDPOINT"
    )
    stack_dir: Path | None = Field(
        default=None, description="Folder of the local stack; unset: a folder in /var/tmp"
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="Format of log lines: console or json"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Minimum level of log lines: debug, info, warning or error"
    )

    _deadline: float | None = PrivateAttr(default=None)

    def model_post_init(self, _: object) -> None:
        """Count the time of the task from now on."""
        if self.time_left_s is not None:
            self._deadline = time.monotonic() + self.time_left_s

    @property
    def deadline(self) -> float | None:
        """When the task of `time_left_s` ends, by `time.monotonic`; None without a task."""
        return self._deadline

    @field_validator("score_deadline_s", "statement_timeout_s")
    @classmethod
    def _limit_to_task(cls, limit_s: float, info: ValidationInfo) -> float:
        """Limit a timeout to the time left for the task.

        The error then names what was slow, before Airflow ends the task; and PostgreSQL does not
        continue, holding locks, for a task that has ended.
        """
        left_s: float | None = info.data.get("time_left_s")
        return limit_s if left_s is None else min(limit_s, max(left_s, 1.0))

    @field_validator("summary_retention_days", "run_retention_days")
    @classmethod
    def _keep_longer(cls, days: int, info: ValidationInfo) -> int:
        """Refuse a period that ends before that of the rows per image, which refer to the data."""
        needed = info.data.get("retention_days")
        if needed is not None and days < needed:
            raise ValueError(f"must be at least FER_RETENTION_DAYS, which is {needed}")
        return days

    @field_validator("erasure_secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        """Refuse a secret that could be guessed; white space around it does not count."""
        if secret is None:
            return None
        text = secret.get_secret_value().strip()
        if len(text) < _MIN_SECRET_CHARACTERS:
            raise ValueError(
                f"must have at least {_MIN_SECRET_CHARACTERS} characters: create one with "
                "`openssl rand -hex 32`"
            )
        return SecretStr(text)

    @field_validator("alert_below_window_days", "alert_below_window_weeks")
    @classmethod
    def _check_window(cls, window: int, info: ValidationInfo) -> int:
        """Refuse a window with fewer days or weeks than must be below the target in it."""
        name = f"alert_below_{(info.field_name or '').rpartition('_')[2]}"
        needed = info.data.get(name)
        if needed is not None and needed > window:
            raise ValueError(f"must be at least FER_{name.upper()}, which is {needed}")
        return window

    @field_validator("s3_credentials", "chat_urls")
    @classmethod
    def _lower_names(cls, by_name: dict[str, Any]) -> dict[str, Any]:
        return {name.lower(): value for name, value in by_name.items()}
