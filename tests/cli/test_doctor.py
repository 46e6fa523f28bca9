"""The diagnosis of `fer-batch check`: each failing part is reported with a hint."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from botocore.credentials import Credentials
from psycopg import sql
from pydantic import SecretStr

from fer_batch.cli.doctor import Diagnosis, diagnose
from fer_batch.database import schema
from fer_batch.local.stack.postgres import ADMIN, OWNER
from fer_batch.settings import Settings
from fer_batch.storage.location import BucketLocation
from tests.fixtures.night import Night, format_facility
from tests.fixtures.servers import ERASER, RETAINER, switch_login
from tests.support.faulty_s3 import Fault, running_proxy

PARTS = [
    "database",
    "erasure secret",
    "CNN",
    "face detector",
    "decoder sandbox",
    "Airflow",
    "facility registry",
]

FORMER_ERASURE = (
    '{"kind": "image", "facility_id": "a", "capture_day": "2026-03-01", "images": 1, "faces": 1,'
    f' "erased_at": "2026-04-01T00:00:00Z", "key_sha256": "{"0" * 64}"}}\n'
)
"""A line of the erasure log of an earlier version."""


def found(settings: Settings, **changes: Any) -> dict[str, Diagnosis]:
    findings = diagnose(settings.model_copy(update=changes))
    by_part = {finding.part: finding for finding in findings}
    assert len(by_part) == len(findings)
    assert list(by_part)[: len(PARTS)] == PARTS
    return by_part


def test_working_parts_are_reported_with_their_location(night: Night, tmp_path: Path) -> None:
    night.write_registry(format_facility("a"))
    log = tmp_path / "former.jsonl"
    log.write_text(FORMER_ERASURE)
    parts = found(night.settings, erasure_log=log)
    assert {part.is_ok for part in parts.values()} == {True}
    assert list(parts) == [*PARTS, "facility a"]
    assert f"Warning: the erasure log {log} has the SHA-256" in parts["erasure secret"].detail
    assert parts["database"].detail.startswith("127.0.0.1:")
    assert parts["facility registry"].detail == "a"
    assert night.s3.bucket in parts["facility a"].detail
    assert night.settings.database_url is not None
    assert night.settings.database_url.get_secret_value() not in repr(parts)


@pytest.mark.parametrize(
    ("changes", "part", "hint"),
    [
        ({"database_url": None}, "database", "Set FER_DATABASE_URL"),
        ({"database_url": SecretStr("mysql://a:canary@b/c")}, "database", "FER_DATABASE_URL"),
        ({"model_card": Path("gone.json")}, "CNN", "gone.json"),
        ({"facilities_file": Path("gone.toml")}, "facility registry", "FER_FACILITIES_FILE"),
        ({"s3_bucket": "no-such-bucket"}, "facility a", "FER_S3_BUCKET"),
        ({"s3_access_key_id": "nobody"}, "facility a", "FER_S3_ACCESS_KEY_ID"),
        ({"s3_endpoint": "no-url"}, "facility a", "FER_S3_ENDPOINT"),
        ({"s3_ca_bundle": Path("gone.pem")}, "facility a", "FER_S3_CA_BUNDLE"),
    ],
)
def test_a_failing_part_is_reported_with_a_hint(
    night: Night, changes: dict[str, Any], part: str, hint: str
) -> None:
    night.write_registry(format_facility("a"))
    parts = found(night.settings, **changes)
    assert [name for name, finding in parts.items() if not finding.is_ok] == [part]
    assert hint in parts[part].detail
    assert "canary" not in repr(parts)


def test_a_login_that_may_do_more_than_the_job_is_named(night: Night) -> None:
    night.write_registry(format_facility("a"))
    assert night.settings.database_url is not None
    url = night.settings.database_url.get_secret_value()
    details = {
        login: found(night.settings, database_url=SecretStr(switch_login(url, login)))["database"]
        for login in (OWNER, ERASER, ADMIN)
    }
    assert all(detail.is_ok for detail in details.values())
    assert "may create roles and owns the schema fer" in details[OWNER].detail
    assert "is a member of fer_eraser" in details[ERASER].detail
    assert "is a superuser" in details[ADMIN].detail
    assert "fer-batch db grant LOGIN --role writer" in details[OWNER].detail
    assert "Warning" not in found(night.settings)["database"].detail


def test_a_login_without_the_role_is_told_what_it_lacks(night: Night) -> None:
    night.write_registry(format_facility("a"))
    assert night.settings.database_url is not None
    url = switch_login(night.settings.database_url.get_secret_value(), RETAINER)
    part = found(night.settings, database_url=SecretStr(url))["database"]
    assert not part.is_ok
    assert "no privilege DELETE, INSERT, SELECT, UPDATE on table fer.image" in part.detail
    assert "fer-batch db roles" in part.detail


def test_a_missing_face_detector(night: Night) -> None:
    """It is part of the model version, so the CNN fails too."""
    night.write_registry(format_facility("a"))
    parts = found(night.settings, detector_file=Path("gone.onnx"))
    failed = [name for name, finding in parts.items() if not finding.is_ok]
    assert failed == ["CNN", "face detector", "decoder sandbox"]
    assert all("FER_DETECTOR_FILE" in parts[name].detail for name in failed)


def test_a_database_that_is_down_or_not_migrated(night: Night, postgres_url: str) -> None:
    night.write_registry(format_facility("a"))
    empty = found(night.settings, database_url=SecretStr(postgres_url))
    assert "Run `fer-batch db upgrade`" in empty["database"].detail
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening
        url = SecretStr(f"postgresql://a:canary@127.0.0.1:{taken.getsockname()[1]}/b")
        down = found(night.settings, database_url=url)
    assert not down["database"].is_ok
    assert "Check that it runs" in down["database"].detail
    assert "canary" not in repr(down)
    assert empty["facility a"].is_ok
    assert down["facility a"].is_ok


def test_a_database_that_accepts_no_writes(night: Night, postgres_url: str) -> None:
    """As a standby does."""
    night.write_registry(format_facility("a"))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        schema.upgrade(postgres_url)
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name)
        )
    part = found(night.settings, database_url=SecretStr(postgres_url))["database"]
    assert not part.is_ok
    assert "the database accepts no writes" in part.detail
    assert "standby" in part.detail


def test_an_altered_cnn(night: Night) -> None:
    night.write_registry(format_facility("a"))
    card = night.settings.model_card
    assert card is not None
    artifact = card.with_suffix(".onnx")
    artifact.write_bytes(artifact.read_bytes() + b"\0")
    parts = found(night.settings)
    assert not parts["CNN"].is_ok
    assert "SHA-256" in parts["CNN"].detail


def test_without_a_permission_s3_is_not_contacted(
    night: Night, sent_operations: Callable[[], list[str]]
) -> None:
    ended = """
[facility.{name}.permission]
purpose = "test"
lawful_basis = "consent"
approved_by = "the test"
valid_until = 2020-01-31
"""
    night.write_registry(
        format_facility("none", more='bucket = "no-such-bucket"\n', permission=""),
        format_facility("ended", permission=ended),
    )
    parts = found(night.settings)
    assert sent_operations() == []
    assert parts["facility none"].is_ok
    assert parts["facility none"].detail == "skipped: no permission is recorded"
    assert parts["facility ended"].detail == "skipped: permission ended on 2020-01-31"
    night.write_registry(format_facility("a"))
    found(night.settings)
    assert set(sent_operations()) == {
        *("ListObjectsV2", "GetObject"),
        *("GetBucketVersioning", "GetBucketLifecycleConfiguration"),
    }


def test_lifecycle_rules_that_do_not_fit_are_a_warning(night: Night) -> None:
    night.write_registry(
        format_facility("a"),
        format_facility("b", more='key_template = "{{facility_id}}/{{capture_day:%Y/%m/%d}}/"\n'),
    )

    def put_rule(prefix: str, days: int) -> None:
        rule = {"ID": "x", "Status": "Enabled", "Filter": {"Prefix": prefix}}
        night.s3.client.put_bucket_lifecycle_configuration(
            Bucket=night.s3.bucket,
            LifecycleConfiguration={"Rules": [rule | {"Expiration": {"Days": days}}]},
        )

    def find_warnings() -> list[str]:
        parts = found(night.settings)
        assert parts["facility a"].is_ok
        assert parts["Airflow"].detail.startswith("its history is not checked: set FER_AIRFLOW_URL")
        return [parts[f"facility {name}"].detail.partition("Warning: ")[2] for name in "ab"]

    assert [text[:36] for text in find_warnings()] == ["no lifecycle rule deletes all images"] * 2
    put_rule("a/", 14)
    assert [text[:46] for text in find_warnings()] == [
        "", "no lifecycle rule deletes all images below 'b/'"[:46]
    ]  # fmt: skip
    put_rule("", 2)
    assert all("deletes images after 2 days" in text for text in find_warnings())


def test_missing_read_access_is_reported(night: Night, s3: Any) -> None:
    night.write_registry(format_facility("a"))
    keys = Credentials(s3.access_key_id, s3.secret_access_key)
    with running_proxy(s3.endpoint, s3.bucket, keys) as proxy:
        proxy.faults = [Fault("403", of="")]
        part = found(night.settings, s3_endpoint=proxy.endpoint)["facility a"]
    assert not part.is_ok
    assert "Allow listing and reading" in part.detail


def test_an_endpoint_without_tls_is_told(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    night.write_registry(format_facility("a"))
    assert "TLS" not in found(night.settings)["facility a"].detail
    # The servers of the tests are on this machine, where no TLS is needed.
    monkeypatch.setattr(BucketLocation, "is_unencrypted", True)
    part = found(night.settings)["facility a"]
    assert (part.is_ok, "has no TLS" in part.detail) == (False, True)
    part = found(night.settings, s3_allow_http=True)["facility a"]
    assert (part.is_ok, "it has no TLS (FER_S3_ALLOW_HTTP)" in part.detail) == (True, True)


def test_all_failing_facilities_are_reported(night: Night) -> None:
    night.write_registry(
        format_facility("lost", more='bucket = "no-such-bucket"\n'), format_facility("a")
    )
    parts = found(night.settings)
    assert not parts["facility lost"].is_ok
    assert "the facility's `bucket`" in parts["facility lost"].detail
    assert parts["facility a"].is_ok


def test_facilities_with_overlapping_keys_are_reported(night: Night) -> None:
    """One names the default bucket, the other names none: it is the same bucket."""
    template = 'key_template = "shop/{{capture_day:%Y-%m-%d}}/"\n'
    night.write_registry(
        format_facility("a", more=template),
        format_facility("b", more=f'{template}bucket = "{night.s3.bucket}"\n'),
    )
    parts = found(night.settings)
    assert list(parts) == PARTS
    assert "overlapping prefixes" in parts["facility registry"].detail
