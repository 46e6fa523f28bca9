"""Failures around the command: each message has a hint, and nothing is written partially."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from structlog.testing import capture_logs

from fer_batch import cli
from fer_batch.errors import EXIT_RETRYABLE
from tests.fixtures.command import Command
from tests.fixtures.night import DAY, Night, format_facility

ON_DAY = ("--capture-day", DAY.isoformat())
WRITTEN = ("image", "image_result", "face_result")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine without a server."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening
        yield taken.getsockname()[1]


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("file", [None, "/reports/index.html"])
def test_a_full_disk_may_be_retried(monkeypatch: pytest.MonkeyPatch, file: str | None) -> None:
    def fill_disk(**_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", file)

    monkeypatch.setattr(cli, "app", SimpleNamespace(meta=fill_disk))
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    with capture_logs() as logs, pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == EXIT_RETRYABLE
    where = file or "the folder of temporary files"
    assert logs[-1]["event"].startswith(f"{where}: No space left on device. Free space there")


def rows(night: Night, table: str) -> int:
    (row,) = night.query(f"select count(*) as n from fer.{table}")  # noqa: S608
    return int(row["n"])


def filled(night: Night) -> None:
    night.write_registry(format_facility("a"))
    night.fill("a", happy=3, sad=2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"FER_S3_BUCKET": "no-such-bucket"}, "Create it, or correct FER_S3_BUCKET"),
        ({"FER_S3_ACCESS_KEY_ID": "nobody"}, "Correct FER_S3_ACCESS_KEY_ID"),
        ({"FER_S3_SECRET_ACCESS_KEY": "canary"}, "FER_S3_SECRET_ACCESS_KEY"),
        ({"FER_S3_ENDPOINT": "no-url"}, "Correct FER_S3_ENDPOINT"),
    ],
)
def test_s3_denies_access(
    nightly: Command, night: Night, changes: dict[str, str], said: str
) -> None:
    filled(night)
    looked = nightly("check", "--json", **changes)
    assert looked.code == 3
    assert [row["part"] for row in looked.json if not row["ok"]] == ["facility a"]
    assert said in looked.json[-1]["detail"]
    ran = nightly("run", *ON_DAY, "--json", **changes)
    assert ran.code == 3
    (finding,) = [found for found in ran.json["findings"] if found["check"] == "listing_failed"]
    assert said in finding["finding"]
    assert said in ran.err
    assert "canary" not in looked.out + ran.out + ran.err
    assert "Traceback" not in ran.err
    assert [rows(night, table) for table in WRITTEN] == [0, 0, 0]
    assert not night.read_summary("a")["is_complete"]


def test_an_unreachable_s3_server_is_a_transient_error(
    nightly: Command, night: Night, closed_port: int
) -> None:
    filled(night)
    endpoint = f"http://127.0.0.1:{closed_port}"
    down = nightly("run", *ON_DAY, "--json", FER_S3_ENDPOINT=endpoint)
    assert down.code == 75
    assert [summary["is_complete"] for summary in down.json["summaries"]] == [False]
    assert "Check that the server runs and that FER_S3_ENDPOINT is right" in down.err
    assert [rows(night, table) for table in WRITTEN] == [0, 0, 0]
    back = nightly("list-images", *ON_DAY, "--json")
    assert back.json[0]["new"] == 5


def test_a_server_that_is_not_s3(nightly: Command, night: Night, postgres_url: str) -> None:
    """A wrong port with another server."""
    filled(night)
    port = psycopg.conninfo.conninfo_to_dict(postgres_url)["port"]
    ended = nightly("check", "--json", FER_S3_ENDPOINT=f"http://127.0.0.1:{port}")
    assert ended.code == 3
    assert "FER_S3_ENDPOINT" in ended.json[-1]["detail"]


@pytest.mark.parametrize(
    "command", ["run", "list-images", "plan-shards", "score", "summarize", "check-data", "report"]
)
def test_an_unreachable_database_is_a_transient_error(
    nightly: Command, night: Night, closed_port: int, command: str
) -> None:
    filled(night)
    url = f"postgresql://fer:canary@127.0.0.1:{closed_port}/fer"
    ended = nightly(command, *ON_DAY, "--json", FER_DATABASE_URL=url)
    assert (ended.code, ended.out) == (75, "")
    assert "Check that it runs and that FER_DATABASE_URL has its address" in ended.err
    assert "canary" not in ended.err
    assert not night.settings.report_dir.exists()


@pytest.mark.parametrize("command", ["run", "summarize", "report"])
def test_no_database_is_set(nightly: Command, night: Night, command: str) -> None:
    filled(night)
    ended = nightly(command, *ON_DAY, "--json", FER_DATABASE_URL=None)
    assert (ended.code, ended.out) == (2, "")
    assert "Set FER_DATABASE_URL" in ended.err


def test_a_refused_login(nightly: Command, night: Night, database_url: str) -> None:
    filled(night)
    parts = psycopg.conninfo.conninfo_to_dict(database_url)
    url = f"postgresql://{parts['user']}:canary@{parts['host']}:{parts['port']}/{parts['dbname']}"
    ended = nightly("run", *ON_DAY, FER_DATABASE_URL=url)
    assert (ended.code, ended.out) == (2, "")
    assert "Check user, password and database of FER_DATABASE_URL" in ended.err
    assert "canary" not in ended.err


@pytest.mark.parametrize(
    "command",
    [
        ["run", *ON_DAY],
        ["list-images", *ON_DAY],
        ["check-data", *ON_DAY],
        ["report", *ON_DAY],
        ["facilities", "sync"],
        ["models"],
    ],
    ids=lambda command: command[0],
)
def test_a_database_that_is_not_migrated(
    nightly: Command, night: Night, postgres_url: str, command: list[str]
) -> None:
    filled(night)
    ended = nightly(*command, FER_DATABASE_URL=postgres_url)
    assert (ended.code, ended.out) == (2, "")
    assert "Run `fer-batch db upgrade`" in ended.err
    with psycopg.connect(postgres_url) as connection:
        found = connection.execute("select to_regnamespace('fer')").fetchone()
    assert found == (None,)
    assert not night.settings.report_dir.exists()


def test_an_altered_cnn_scores_nothing_until_it_is_restored(nightly: Command, night: Night) -> None:
    filled(night)
    artifact = Path(nightly.env["FER_MODEL_CARD"]).with_suffix(".onnx")
    right = artifact.read_bytes()
    artifact.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    ended = nightly("run", *ON_DAY, "--json")
    assert (ended.code, ended.json) == (2, {"summaries": None, "findings": None})
    assert f"{artifact} has SHA-256" in ended.err
    assert [rows(night, name) for name in ("image_result", "model_version")] == [0, 0]
    artifact.write_bytes(right)
    assert nightly("run", *ON_DAY).code == 0
    assert night.count_outcomes("a") == {"scored": 5}


def test_a_report_folder_that_cannot_be_written(nightly: Command, night: Night) -> None:
    filled(night)
    in_the_way = nightly.folder / "file"
    in_the_way.write_text("")
    ended = nightly("report", *ON_DAY, FER_REPORT_DIR=str(in_the_way / "reports"))
    assert (ended.code, ended.out) == (2, "")
    assert str(in_the_way) in ended.err
    assert "Traceback" not in ended.err


def test_credentials_that_are_not_set(nightly: Command, night: Night) -> None:
    night.write_registry(format_facility("a", more='credentials = "harbour"\n'))
    ended = nightly("check", "--json")
    assert ended.code == 3
    assert "Set FER_S3_CREDENTIALS__HARBOUR__ACCESS_KEY_ID" in ended.json[-1]["detail"]
    own = {
        "FER_S3_CREDENTIALS__HARBOUR__ACCESS_KEY_ID": nightly.env["FER_S3_ACCESS_KEY_ID"],
        "FER_S3_CREDENTIALS__HARBOUR__SECRET_ACCESS_KEY": nightly.env["FER_S3_SECRET_ACCESS_KEY"],
        "FER_S3_ACCESS_KEY_ID": "of-another-account",
    }
    assert nightly("check", "--json", **own).code == 0
