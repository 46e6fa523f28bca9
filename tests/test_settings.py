"""Settings: their sources and precedence, and that a child process gets the same settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from structlog.testing import capture_logs

from fer_batch.cli.doctor import LOOKBACK_DAYS
from fer_batch.errors import ConfigurationError
from fer_batch.settings import S3Credentials, Settings
from fer_batch.settings_sources import (
    get_log_format,
    list_sources,
    load_settings,
    to_environment,
)
from fer_batch.storage.bucket_rules import ImageNeeds
from fer_batch.storage.credentials import find_credentials

SCORED_DAYS = ImageNeeds([], LOOKBACK_DAYS, 0).scored_days


def load_from(environment: Mapping[str, str]) -> Settings:
    """The settings of a process with only this environment."""
    with mock.patch.dict(os.environ, {"FER_ENV_FILE": os.devnull, **environment}, clear=True):
        return load_settings()


# What an environment can contain: no NUL, no surrogates, and an empty value means unset.
text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
# Texts that a parser of JSON, numbers or booleans might misinterpret.
texts = text | st.sampled_from(["null", "true", "0123", "1e5", "{}", "[1]", '"q"', " x ", "a=b#c"])
secrets = texts.map(SecretStr)
paths = texts.map(Path)
names = st.from_regex(r"[a-z0-9]+(_[a-z0-9]+)*", fullmatch=True)
seconds = st.floats(min_value=1e-6, max_value=1e9)
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "database_url": secrets,
    "facilities_file": paths,
    "strict_registry_from": st.dates(),
    "s3_bucket": texts,
    "s3_endpoint": texts,
    "s3_region": texts,
    "s3_path_style": st.booleans(),
    "s3_allow_http": st.booleans(),
    "s3_ca_bundle": paths,
    "s3_access_key_id": texts,
    "s3_secret_access_key": secrets,
    "s3_session_token": secrets,
    "s3_credentials": st.dictionaries(
        names,
        st.builds(
            S3Credentials,
            access_key_id=texts,
            secret_access_key=secrets,
            session_token=st.none() | secrets,
        ),
        max_size=3,
    ),
    "s3_timeout_s": seconds,
    "s3_concurrency": st.integers(1, 512),
    "model_card": paths,
    "detector_file": paths,
    "max_image_bytes": st.integers(1, 2**40),
    "max_image_pixels": st.integers(1, 2**40),
    "min_image_px": st.integers(1, 10_000),
    "min_face_px": st.integers(1, 10_000),
    "threads": st.integers(1, 1000),
    "chunk_images": st.integers(1, 65_536),
    "shard_images": st.integers(1, 2**31),
    "max_shards": st.integers(1, 1024),
    "time_left_s": st.none() | st.floats(-10, 1e5),
    "score_deadline_s": seconds,
    "score_memory_mb": st.integers(200, 2**20),
    "sandbox": st.sampled_from(["prefer", "require"]),
    "decode_memory_mb": st.none() | st.integers(50, 2**20),
    "statement_timeout_s": seconds,
    "retention_days": st.integers(5, 500),
    "summary_retention_days": st.integers(500, 36_500),
    "finding_retention_days": st.integers(31, 36_500),
    "run_retention_days": st.integers(500, 36_500),
    "report_retention_days": st.integers(1, 36_500),
    "temporary_file_days": st.integers(1, 365),
    "airflow_retention_days": st.integers(1, 36_500),
    "audit_days": st.integers(1, 3650),
    "erasure_log": paths,
    "erasure_secret": st.text("09af #=", min_size=34).map(lambda each: SecretStr(f"a{each}f")),
    "alert_min_faces": st.integers(30, 10_000),
    "alert_min_sessions": st.integers(10, 1000),
    "alert_below_days": st.integers(1, 7),
    "alert_below_window_days": st.integers(7, 28),
    "alert_below_weeks": st.integers(1, 4),
    "alert_below_window_weeks": st.integers(4, 8),
    "alert_spread_factor": st.floats(0.1, 100),
    "alert_min_difference": st.floats(0, 1),
    "alert_drift_index": st.floats(0.1, 10),
    "alert_drift_difference": st.floats(0.1, 1),
    "report_dir": paths,
    "report_url": texts,
    "report_endpoint": texts,
    "report_link": texts,
    "subscriptions_file": paths,
    "smtp_host": texts,
    "smtp_port": st.integers(1, 65_535),
    "smtp_security": st.sampled_from(["starttls", "tls", "none"]),
    "smtp_user": texts,
    "smtp_password": secrets,
    "smtp_from": texts,
    "smtp_ca_bundle": paths,
    "chat_urls": st.dictionaries(names, secrets, max_size=3),
    "incident_to": texts,
    "incident_chats": texts,
    "airflow_url": texts,
    "airflow_user": texts,
    "airflow_password": secrets,
    "export_dir": paths,
    "export_url": texts,
    "export_endpoint": texts,
    "stack_dir": paths,
    "log_format": st.sampled_from(["console", "json"]),
    "log_level": st.sampled_from(["debug", "info", "warning", "error"]),
}


def test_the_strategies_cover_every_setting() -> None:
    assert list(FIELDS) == list(Settings.model_fields)


@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_a_child_process_gets_the_same_settings(values: dict[str, Any]) -> None:
    if "s3_access_key_id" not in values or "s3_secret_access_key" not in values:
        values = {n: v for n, v in values.items() if "access_key" not in n}  # a pair is required
    with (
        mock.patch.dict(os.environ, {}, clear=True),
        mock.patch("fer_batch.settings.time.monotonic", return_value=0.0),
    ):
        settings = Settings(_env_file=None, **values)
        environment = to_environment(settings)
        assert all(name.startswith("FER_") for name in environment)
        assert load_from(environment) == settings


def test_a_secret_that_could_be_guessed_is_refused() -> None:
    """White space around it, as of a file, does not count."""
    for short in ("secret", f"{'s' * 31}\n"):
        with pytest.raises(ConfigurationError, match="create one with `openssl rand"):
            load_from({"FER_ERASURE_SECRET": short})
    settings = load_from({"FER_ERASURE_SECRET": f"  {'s' * 32}\n"})
    assert settings.erasure_secret == SecretStr("s" * 32)


def test_a_child_process_gets_the_time_that_is_left_when_it_starts() -> None:
    clock = mock.Mock(return_value=1000.0)
    with mock.patch("fer_batch.settings.time.monotonic", clock):
        settings = load_from({"FER_TIME_LEFT_S": "100"})
        clock.return_value = 1060.0
        child = load_from(to_environment(settings))
    assert child.time_left_s == 40.0
    assert child.deadline == settings.deadline == 1100.0


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("FER_S3_BUKET", "FER_S3_BUCKET"),
        ("FER_DATABSE_URL", "FER_DATABASE_URL"),
        ("FER_THREAD", "FER_THREADS"),
        ("fer_s3_endpiont", "FER_S3_ENDPOINT"),
        ("FER_MIN_FACE_PIXELS", "FER_MIN_FACE_PX"),
        ("FER_DEADLINE_HOUR", "FER_DEADLINE_HOURS"),
        ("FER_S3_CREDENTAILS__NORTH__ACCESS_KEY_ID", "FER_S3_CREDENTIALS"),
    ],
)
@pytest.mark.parametrize("place", ["environment", "file"])
def test_a_misspelled_setting_is_refused_with_the_right_name(
    tmp_path: Path, name: str, near: str, place: str
) -> None:
    file = tmp_path / "settings"
    file.write_text(f"{name}=canary\n" if place == "file" else "")
    environment = {"FER_ENV_FILE": str(file)} | ({name: "canary"} if place != "file" else {})
    with pytest.raises(ConfigurationError) as caught:
        load_from(environment)
    assert f"{name.upper()} (did you mean {near}?)" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_variable_that_resembles_no_setting_is_named_in_a_warning() -> None:
    with capture_logs() as lines:
        load_from({"FER_NEW_TOOL": "canary", "FER_PYTHON": "python3", "FER_S3_BUKET": ""})
    (line,) = lines
    assert line["log_level"] == "warning"
    assert line["event"].startswith("FER_NEW_TOOL is not a setting")
    assert "canary" not in repr(line)


@pytest.mark.parametrize(
    ("left_s", "statement_s", "scoring_s"),
    [(None, 7200.0, 3600.0), ("4000", 4000.0, 3600.0), ("90", 90.0, 90.0), ("-5", 1.0, 1.0)],
)
def test_time_limits_do_not_exceed_the_time_left_of_the_task(
    tmp_path: Path, left_s: str | None, statement_s: float, scoring_s: float
) -> None:
    file = tmp_path / "settings"
    file.write_text("FER_STATEMENT_TIMEOUT_S=7200\n")
    environment = {"FER_ENV_FILE": str(file)} | ({"FER_TIME_LEFT_S": left_s} if left_s else {})
    with mock.patch.dict(os.environ, environment, clear=True):
        settings = load_settings()
    assert (settings.statement_timeout_s, settings.score_deadline_s) == (statement_s, scoring_s)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_environment_comes_before_the_file_and_the_file_before_the_default(
    tmp_path: Path, encoding: str
) -> None:
    file = tmp_path / "settings"
    lines = (
        "FER_MAX_SHARDS=3\nFER_THREADS=2\nFER_S3_BUCKET='of the file'\nexport FER_S3_REGION=eu\n"
    )
    file.write_text(lines, encoding=encoding)
    environment = {"FER_ENV_FILE": str(file), "FER_THREADS": "3", "FER_S3_REGION": ""}
    with mock.patch.dict(os.environ, environment, clear=True):
        settings = load_settings()
        rows = {row["name"]: row["source"] for row in list_sources(settings)}
    assert (settings.threads, settings.s3_bucket) == (3, "of the file")
    assert (settings.max_shards, settings.chunk_images) == (3, 1024)
    assert rows["FER_THREADS"] == "environment"
    assert rows["FER_S3_BUCKET"] == str(file)
    assert rows["FER_MAX_SHARDS"] == str(file)
    assert rows["FER_CHUNK_IMAGES"] == "default"
    assert settings.s3_region == "eu"  # an empty environment variable counts as unset
    assert rows["FER_S3_REGION"] == str(file)


def test_sources_name_every_setting_and_show_no_secret() -> None:
    secret = "canary"
    values = {
        "database_url": f"postgresql://fer:{secret}@h/fer",
        "s3_endpoint": f"https://user:{secret}@h/path",
        "s3_secret_access_key": secret,
        "s3_session_token": secret,
        "s3_credentials": {
            "a": {"access_key_id": "k", "secret_access_key": secret, "session_token": secret}
        },
    }
    rows = list_sources(Settings(_env_file=None, **values))  # type: ignore[arg-type]
    assert [row["name"] for row in rows] == [f"FER_{n.upper()}" for n in Settings.model_fields]
    assert all(row["description"] for row in rows)
    assert secret not in repr(rows)
    shown = {row["name"]: row["value"] for row in rows}
    assert shown["FER_S3_ENDPOINT"] == "https://**********@h/path"
    assert shown["FER_S3_CREDENTIALS"]["a"]["access_key_id"] == "k"


def test_credentials_by_name() -> None:
    settings = load_from(
        {
            "FER_S3_ACCESS_KEY_ID": "mine",
            "FER_S3_SECRET_ACCESS_KEY": "one",
            "FER_S3_CREDENTIALS__HARBOUR__ACCESS_KEY_ID": "theirs",
            "FER_S3_CREDENTIALS__HARBOUR__SECRET_ACCESS_KEY": "two",
            "FER_S3_CREDENTIALS": '{"Lake": {"access_key_id": "x", "secret_access_key": "y"}}',
        }
    )
    assert find_credentials(settings, None) == S3Credentials(
        access_key_id="mine", secret_access_key=SecretStr("one")
    )
    for name, key in (("harbour", "theirs"), ("HARBOUR", "theirs"), ("lake", "x")):
        credentials = find_credentials(settings, name)
        assert credentials is not None
        assert credentials.access_key_id == key
    with pytest.raises(ConfigurationError) as caught:
        find_credentials(settings, "nobody")
    assert "FER_S3_CREDENTIALS__NOBODY__ACCESS_KEY_ID" in caught.value.hint


@pytest.mark.parametrize("name", ["FER_S3_ACCESS_KEY_ID", "FER_S3_SECRET_ACCESS_KEY"])
def test_half_a_key_pair_is_an_error_and_not_completed_by_the_aws_chain(name: str) -> None:
    """Otherwise the AWS credential chain might provide the keys of another account."""
    with pytest.raises(ConfigurationError) as caught:
        load_from({name: "x"})
    assert "FER_S3_ACCESS_KEY_ID and FER_S3_SECRET_ACCESS_KEY" in str(caught.value)


def test_without_keys_the_aws_credential_chain_is_used() -> None:
    assert find_credentials(load_from({}), None) is None


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({"FER_THREADS": "0"}, ["FER_THREADS"]),
        ({"FER_THREADS": "x", "FER_LOG_LEVEL": "loud"}, ["FER_THREADS", "FER_LOG_LEVEL"]),
        ({"FER_S3_CREDENTIALS": "canary"}, ["FER_S3_CREDENTIALS"]),
        ({"FER_S3_CREDENTIALS__A": "canary"}, ["FER_S3_CREDENTIALS__A"]),
        (
            {"FER_S3_CREDENTIALS__A__SECRET_ACCESS_KEY": "canary"},
            ["FER_S3_CREDENTIALS__A__ACCESS_KEY_ID"],
        ),
        (
            {
                "FER_S3_CREDENTIALS__A__ACCESS_KEY_ID": "k",
                "FER_S3_CREDENTIALS__A__SECRET_ACCESS_KEY": "canary",
                "FER_S3_CREDENTIALS__A__SESSION_TOKN": "canary",
            },
            ["FER_S3_CREDENTIALS__A__SESSION_TOKN"],
        ),
        ({"FER_ENV_FILE": "/nowhere/settings"}, ["FER_ENV_FILE", "/nowhere/settings"]),
        ({"FER_ALERT_BELOW_DAYS": "8"}, ["FER_ALERT_BELOW_WINDOW_DAYS", "at least"]),
        ({"FER_ALERT_BELOW_WINDOW_WEEKS": "1"}, ["FER_ALERT_BELOW_WEEKS, which is 2"]),
        ({"FER_ALERT_MIN_FACES": "29"}, ["FER_ALERT_MIN_FACES"]),
        ({"FER_RETENTION_DAYS": str(SCORED_DAYS - 1)}, ["FER_RETENTION_DAYS", str(SCORED_DAYS)]),
        ({"FER_ALERT_SPREAD_FACTOR": "nan"}, ["FER_ALERT_SPREAD_FACTOR"]),
    ],
)
def test_errors_name_the_invalid_settings(environment: dict[str, str], names: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_from(environment)
    assert all(name in str(caught.value) for name in names)
    assert caught.value.hint
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None  # the value must not appear in a traceback either


def test_an_empty_name_of_the_file_counts_as_unset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("FER_S3_REGION=eu\nFER_THREADS=\n")
    assert load_from({"FER_ENV_FILE": "", "FER_S3_BUCKET": ""}).s3_region == "eu"


@pytest.mark.parametrize(
    ("value", "log_format"),
    [("json", "json"), ("console", "console"), ("xml", "console"), (None, "console")],
)
def test_the_log_format_is_known_before_the_settings_are_loaded(
    value: str | None, log_format: str
) -> None:
    environment = {} if value is None else {"FER_LOG_FORMAT": value}
    with mock.patch.dict(os.environ, environment, clear=True):
        assert get_log_format() == log_format
