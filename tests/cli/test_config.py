"""`fer-batch config`, and the errors for invalid settings."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from pydantic import SecretStr

from fer_batch.settings import S3Credentials, Settings
from tests.fixtures.command import Command

CANARY = "canary-Zq7"
SECRETS = {
    "FER_DATABASE_URL": f"postgresql://fer:{CANARY}@127.0.0.1:9/fer",
    "FER_S3_ENDPOINT": f"http://user:{CANARY}@127.0.0.1:9",
    "FER_S3_ACCESS_KEY_ID": "our-key",
    "FER_S3_SECRET_ACCESS_KEY": CANARY,
    "FER_S3_SESSION_TOKEN": CANARY,
    "FER_S3_CREDENTIALS__HARBOUR__ACCESS_KEY_ID": "harbour-key",
    "FER_S3_CREDENTIALS__HARBOUR__SECRET_ACCESS_KEY": CANARY,
    "FER_S3_CREDENTIALS__HARBOUR__SESSION_TOKEN": CANARY,
    "FER_SMTP_PASSWORD": CANARY,
    "FER_AIRFLOW_PASSWORD": CANARY,
    "FER_ERASURE_SECRET": 4 * CANARY,
    "FER_CHAT_URLS": f'{{"north":"https://chat.example.com/{CANARY}"}}',
}


def test_every_secret_setting_is_among_those_tested() -> None:
    """A new secret must be added to this test."""
    secret = {
        f"{prefix}{name.upper()}"
        for model, prefix in ((Settings, "FER_"), (S3Credentials, "FER_S3_CREDENTIALS__HARBOUR__"))
        for name, field in model.model_fields.items()
        if SecretStr in (field.annotation, *get_args(field.annotation))
    }
    assert len(secret) == 9
    assert secret <= set(SECRETS)


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("place", ["environment", "file"])
def test_no_secret_is_shown(fer: Command, form: list[str], place: str) -> None:
    if place == "file":
        file = fer.folder / ".env"
        file.write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
        ended = fer("config", *form, FER_ENV_FILE=None)
    else:
        ended = fer("config", *form, **SECRETS)
    assert ended.code == 0
    assert CANARY not in ended.out + ended.err
    assert "harbour" in ended.out
    assert ended.out.count("*****") >= 6


@pytest.mark.parametrize("command", ["check", "models"])
def test_no_secret_is_in_error_messages(fer: Command, command: str) -> None:
    ended = fer(command, **SECRETS)
    assert ended.code in (3, 75)
    assert CANARY not in ended.out + ended.err


def test_each_setting_is_shown_with_its_source(fer: Command) -> None:
    (fer.folder / ".env").write_text("FER_THREADS=2\nFER_S3_BUCKET=of-the-file\n")
    ended = fer(
        "config", "--json", FER_ENV_FILE=None, FER_THREADS="3", FER_S3_ENDPOINT="",
        FER_S3_CREDENTIALS__A__ACCESS_KEY_ID="a", FER_S3_CREDENTIALS__A__SECRET_ACCESS_KEY="b",
    )  # fmt: skip
    shown = {row["name"]: row for row in ended.json}
    assert len(shown) == len(Settings.model_fields)
    assert (shown["FER_THREADS"]["value"], shown["FER_THREADS"]["source"]) == (3, "environment")
    assert shown["FER_S3_BUCKET"]["value"] == "of-the-file"
    assert shown["FER_S3_BUCKET"]["source"] == ".env"
    assert shown["FER_S3_CREDENTIALS"]["source"] == "environment"
    assert shown["FER_S3_CREDENTIALS"]["value"]["a"]["access_key_id"] == "a"
    assert shown["FER_MAX_SHARDS"]["source"] == "default"
    assert shown["FER_S3_ENDPOINT"] == {
        "name": "FER_S3_ENDPOINT",
        "value": None,
        "source": "default",  # an empty variable, as in compose files, counts as unset
        "description": "URL of an S3 server; unset: AWS",
    }
    assert all(row["description"] for row in ended.json)


def test_the_table_names_every_setting_in_full(fer: Command) -> None:
    ended = fer("config")
    shown = {line.partition(" ")[0] for line in ended.out.splitlines()}
    assert {f"FER_{name.upper()}" for name in Settings.model_fields} <= shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FER_THREADS", "many"),
        ("FER_THREADS", "0"),
        ("FER_S3_TIMEOUT_S", "-1"),
        ("FER_LOG_LEVEL", "loud"),
        ("FER_S3_PATH_STYLE", "perhaps"),
        ("FER_S3_CREDENTIALS__HARBOUR__ACCESS_KEY_ID", "without-a-secret"),
        ("FER_S3_CREDENTIALS", "no-json"),
        ("FER_CHAT_URLS", "no-json"),
    ],
)
@pytest.mark.parametrize("command", ["config", "predict"])
def test_an_invalid_value_is_reported_with_its_variable(
    fer: Command, command: str, name: str, value: str
) -> None:
    arguments = [command, "picture.png"] if command == "predict" else [command]
    ended = fer(*arguments, **{name: value})
    assert (ended.code, ended.out) == (2, "")
    wrong = {"FER_S3_CREDENTIALS__HARBOUR__ACCESS_KEY_ID":
             "FER_S3_CREDENTIALS__HARBOUR__SECRET_ACCESS_KEY"}.get(name, name)  # fmt: skip
    assert f"{wrong}: " in ended.err
    assert "Correct them in the environment or in" in ended.err
    assert "Traceback" not in ended.err


def test_all_invalid_values_are_named_together(fer: Command) -> None:
    ended = fer("config", FER_THREADS="x", FER_MAX_SHARDS="0")
    assert "FER_THREADS: " in ended.err
    assert "FER_MAX_SHARDS: " in ended.err


def test_an_invalid_secret_is_not_printed(fer: Command) -> None:
    ended = fer("config", FER_S3_CREDENTIALS=f'{{"a": {{"secret_access_key": "{CANARY}"}}')
    assert ended.code == 2
    assert CANARY not in ended.out + ended.err


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "does not exist"), (b"FER_S3_BUCKET=\xff\n", "is not UTF-8")],
)
def test_a_settings_file_that_cannot_be_read(
    fer: Command, content: bytes | None, said: str
) -> None:
    file = fer.folder / "settings"
    if content is not None:
        file.write_bytes(content)
    ended = fer("config", FER_ENV_FILE=str(file))
    assert (ended.code, ended.out) == (2, "")
    assert str(file) in ended.err
    assert said in ended.err


def test_logs_are_json_if_set_even_if_other_settings_are_invalid(fer: Command) -> None:
    """The Airflow adapter reads the last error from these lines."""
    for changes in ({"FER_THREADS": "x"}, {"FER_FACILITIES_FILE": "nowhere.toml"}):
        ended = fer("facilities", "list", FER_LOG_FORMAT="json", **changes)
        (line,) = ended.err.splitlines()
        entry = json.loads(line)
        assert entry["level"] == "error"
        assert next(iter(changes.values())) in line or "FER_THREADS" in entry["event"]
