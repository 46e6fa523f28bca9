"""Settings: where they come from, and that a child process gets the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from fer_batch.errors import ConfigurationError
from fer_batch.settings import (
    S3Credentials,
    Settings,
    load,
    log_format,
    sources,
    to_environment,
)


def load_from(environment: Mapping[str, str]) -> Settings:
    """The settings of a process with this environment and nothing else."""
    with mock.patch.dict(os.environ, {"FER_ENV_FILE": os.devnull, **environment}, clear=True):
        return load()


# What an environment can hold at all: no NUL, no half characters, and empty means unset.
text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
# Words that a reader of JSON, numbers or booleans might take for something else.
texts = text | st.sampled_from(["null", "true", "0123", "1e5", "{}", "[1]", '"q"', " x ", "a=b#c"])
secrets = texts.map(SecretStr)
paths = texts.map(Path)
names = st.from_regex(r"[a-z0-9]+(_[a-z0-9]+)*", fullmatch=True)
seconds = st.floats(min_value=1e-6, max_value=1e9)
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "database_url": secrets,
    "facilities_file": paths,
    "s3_bucket": texts,
    "s3_endpoint": texts,
    "s3_region": texts,
    "s3_path_style": st.booleans(),
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
    "statement_timeout_s": seconds,
    "retention_days": st.integers(1, 36_500),
    "report_dir": paths,
    "stack_dir": paths,
    "log_format": st.sampled_from(["console", "json"]),
    "log_level": st.sampled_from(["debug", "info", "warning", "error"]),
}


def test_every_setting_is_drawn() -> None:
    assert list(FIELDS) == list(Settings.model_fields)


@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_a_child_process_gets_the_same_settings(values: dict[str, object]) -> None:
    if "s3_access_key_id" not in values or "s3_secret_access_key" not in values:
        values = {n: v for n, v in values.items() if "access_key" not in n}  # both or none
    with mock.patch.dict(os.environ, {}, clear=True):
        settings = Settings(_env_file=None, **values)
    environment = to_environment(settings)
    assert all(name.startswith("FER_") for name in environment)
    assert load_from(environment) == settings


@pytest.mark.parametrize(
    ("left_s", "statement_s", "scoring_s"),
    [(None, 7200.0, 3600.0), ("4000", 4000.0, 3600.0), ("90", 90.0, 90.0), ("-5", 1.0, 1.0)],
)
def test_time_limits_are_no_longer_than_what_is_left_to_the_task(
    tmp_path: Path, left_s: str | None, statement_s: float, scoring_s: float
) -> None:
    file = tmp_path / "settings"
    file.write_text("FER_STATEMENT_TIMEOUT_S=7200\n")
    environment = {"FER_ENV_FILE": str(file)} | ({"FER_TIME_LEFT_S": left_s} if left_s else {})
    with mock.patch.dict(os.environ, environment, clear=True):
        settings = load()
    assert (settings.statement_timeout_s, settings.score_deadline_s) == (statement_s, scoring_s)


def test_the_environment_comes_before_the_file_and_the_file_before_the_default(
    tmp_path: Path,
) -> None:
    file = tmp_path / "settings"
    file.write_text("FER_THREADS=2\nFER_S3_BUCKET='of the file'\nexport FER_S3_REGION=eu\n")
    environment = {"FER_ENV_FILE": str(file), "FER_THREADS": "3", "FER_S3_REGION": ""}
    with mock.patch.dict(os.environ, environment, clear=True):
        settings = load()
        rows = {row["name"]: row["source"] for row in sources(settings)}
    assert (settings.threads, settings.s3_bucket, settings.max_shards) == (3, "of the file", 64)
    assert rows["FER_THREADS"] == "environment"
    assert rows["FER_S3_BUCKET"] == str(file)
    assert rows["FER_MAX_SHARDS"] == "default"
    assert settings.s3_region == "eu"  # empty in the environment is not set
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
    rows = sources(Settings(_env_file=None, **values))  # type: ignore[arg-type]
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
    assert settings.credentials_for(None) == S3Credentials(
        access_key_id="mine", secret_access_key=SecretStr("one")
    )
    for name, key in (("harbour", "theirs"), ("HARBOUR", "theirs"), ("lake", "x")):
        found = settings.credentials_for(name)
        assert found is not None
        assert found.access_key_id == key
    with pytest.raises(ConfigurationError) as caught:
        settings.credentials_for("nobody")
    assert "FER_S3_CREDENTIALS__NOBODY__ACCESS_KEY_ID" in caught.value.todo


@pytest.mark.parametrize("name", ["FER_S3_ACCESS_KEY_ID", "FER_S3_SECRET_ACCESS_KEY"])
def test_half_a_pair_of_keys_is_an_error_and_not_somebody_elses_keys(name: str) -> None:
    """With one of the two forgotten, the AWS chain might find another account's keys."""
    with pytest.raises(ConfigurationError) as caught:
        load_from({name: "x"})
    assert "FER_S3_ACCESS_KEY_ID and FER_S3_SECRET_ACCESS_KEY" in str(caught.value)


def test_without_keys_the_usual_chain_decides() -> None:
    assert load_from({}).credentials_for(None) is None


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"FER_THREADS": "0"}, ["FER_THREADS"]),
        ({"FER_THREADS": "x", "FER_LOG_LEVEL": "loud"}, ["FER_THREADS", "FER_LOG_LEVEL"]),
        ({"FER_S3_CREDENTIALS": "canary"}, ["FER_S3_CREDENTIALS"]),
        ({"FER_S3_CREDENTIALS__A": "canary"}, ["FER_S3_CREDENTIALS__A"]),
        (
            {"FER_S3_CREDENTIALS__A__SECRET_ACCESS_KEY": "canary"},
            ["FER_S3_CREDENTIALS__A__ACCESS_KEY_ID"],
        ),
        ({"FER_ENV_FILE": "/nowhere/settings"}, ["FER_ENV_FILE", "/nowhere/settings"]),
    ],
)
def test_what_is_wrong_is_named(environment: dict[str, str], named: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_from(environment)
    assert all(name in str(caught.value) for name in named)
    assert caught.value.todo
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None  # nor in a traceback


@pytest.mark.parametrize(
    ("value", "form"),
    [("json", "json"), ("console", "console"), ("xml", "console"), (None, "console")],
)
def test_the_form_of_log_lines_is_known_before_the_settings(value: str | None, form: str) -> None:
    environment = {} if value is None else {"FER_LOG_FORMAT": value}
    with mock.patch.dict(os.environ, environment, clear=True):
        assert log_format() == form
