"""Which report files the page finds, and what it says if it cannot read them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fer_airflow_page import store
from fer_airflow_page.store import FolderStore, StoreUnavailableError, open_store
from fer_batch.reporting import store as written
from fer_batch.settings import Settings
from fer_batch.storage.object_folder import open_report_folder
from tests.fixtures.servers import S3

DAY = "2026-11-29.html"
KEYS = {
    "FER_S3_CREDENTIALS__REPORT__ACCESS_KEY_ID": "key",
    "FER_S3_CREDENTIALS__REPORT__SECRET_ACCESS_KEY": "very-secret-key",
}


def test_the_page_serves_the_names_that_are_written() -> None:
    assert store.FILE_NAME.pattern == written.FILE_NAME.pattern


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "reports"
        folder.mkdir()
        (folder / DAY).write_bytes(b"night")
        return folder

    def test_a_file_is_read_whole(self, folder: Path) -> None:
        assert FolderStore(folder).read(DAY) == b"night"

    def test_a_missing_file_is_none(self, folder: Path) -> None:
        assert FolderStore(folder).read("index.html") is None

    def test_the_folder_may_be_a_symbolic_link(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(folder)
        assert FolderStore(tmp_path / "link").read(DAY) == b"night"

    @pytest.mark.parametrize("target", ["../secret.html", DAY, "/etc/passwd", "2026-11-28.html"])
    def test_a_symbolic_link_is_never_read(self, folder: Path, target: str) -> None:
        """The last one links to itself."""
        (folder.parent / "secret.html").write_text("secret")
        (folder / "2026-11-28.html").symlink_to(target)
        assert FolderStore(folder).read("2026-11-28.html") is None

    def test_only_regular_files_are_read(self, folder: Path) -> None:
        (folder / "2026-11-28.html").mkdir()
        os.mkfifo(folder / "2026-11-27.html")  # reading it would wait for ever
        assert FolderStore(folder).read("2026-11-28.html") is None
        assert FolderStore(folder).read("2026-11-27.html") is None

    @pytest.mark.parametrize("name", ["absent", f"reports/{DAY}", "reports/nowhere/below"])
    def test_an_absent_folder_is_reported_without_its_path(self, folder: Path, name: str) -> None:
        with pytest.raises(StoreUnavailableError, match="folder does not exist") as caught:
            FolderStore(folder.parent / name).read(DAY)
        assert str(folder.parent) not in str(caught.value)
        assert "FER_REPORT_DIR" in str(caught.value)


class TestSettings:
    def test_the_folder_is_used_if_no_url_is_set(self, tmp_path: Path) -> None:
        (tmp_path / DAY).write_bytes(b"night")
        environ = {"FER_REPORT_DIR": str(tmp_path), "FER_REPORT_URL": ""}
        assert open_store(environ).read(DAY) == b"night"

    @pytest.mark.parametrize(
        ("environ", "named"),
        [
            ({}, "Set FER_REPORT_URL or FER_REPORT_DIR"),
            ({"FER_REPORT_DIR": ""}, "Set FER_REPORT_URL or FER_REPORT_DIR"),
            ({"FER_REPORT_URL": "/srv/reports"}, "FER_REPORT_URL"),
            ({"FER_REPORT_URL": "https://bucket/prefix"}, "FER_REPORT_URL"),
            ({"FER_REPORT_URL": "s3:///prefix"}, "FER_REPORT_URL"),
            ({"FER_REPORT_URL": "s3://bucket/prefix?versionId=1"}, "FER_REPORT_URL"),
            ({"FER_REPORT_URL": "s3://b", "FER_S3_CA_BUNDLE": "/none.pem"}, "FER_S3_CA_BUNDLE"),
            ({"FER_REPORT_URL": "s3://b", "FER_S3_CA_BUNDLE": __file__}, "settings of the report"),
        ],
    )
    def test_a_fault_is_explained_without_its_value(
        self, environ: dict[str, str], named: str
    ) -> None:
        with pytest.raises(StoreUnavailableError) as caught:
            open_store(environ)
        assert named in str(caught.value)
        assert not [value for value in environ.values() if value and value in str(caught.value)]

    @pytest.mark.parametrize("name", KEYS)
    def test_half_of_the_keys_is_a_fault(self, name: str) -> None:
        with pytest.raises(StoreUnavailableError, match="Only one of"):
            open_store({"FER_REPORT_URL": "s3://bucket", name: KEYS[name]})


class TestBucket:
    @pytest.fixture
    def environ(self, s3: S3, s3_client: Any) -> dict[str, str]:
        """A bucket on SeaweedFS with two reports and another object."""
        for key in (f"fer/reports/{DAY}", f"other/{DAY}", "fer/reports/secret.html"):
            s3_client.put_object(Bucket=s3.bucket, Key=key, Body=key.encode())
        return {
            "FER_REPORT_URL": f"s3://{s3.bucket}/fer/reports/",
            "FER_REPORT_ENDPOINT": s3.endpoint,
            "FER_S3_ENDPOINT": "http://127.0.0.1:9",  # that of the images
            "FER_REPORT_DIR": "/nowhere",
            "FER_S3_CREDENTIALS__REPORT__ACCESS_KEY_ID": s3.access_key_id,
            "FER_S3_CREDENTIALS__REPORT__SECRET_ACCESS_KEY": s3.secret_access_key,
        }

    def test_reports_are_read_below_the_prefix(self, environ: dict[str, str]) -> None:
        assert open_store(environ).read(DAY) == f"fer/reports/{DAY}".encode()
        assert open_store(environ).read("index.html") is None

    def test_what_fer_batch_publishes_is_read_with_the_same_settings(
        self, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        folder = open_report_folder(Settings(_env_file=None), environ["FER_REPORT_URL"])
        folder.write("index.html", "<p>Zürich")
        assert open_store(environ).read("index.html") == "<p>Zürich".encode()

    def test_a_bucket_without_a_prefix_is_read(self, environ: dict[str, str]) -> None:
        bucket = environ["FER_REPORT_URL"].removesuffix("/fer/reports/")
        assert open_store(environ | {"FER_REPORT_URL": bucket}).read(DAY) is None
        other = environ | {"FER_REPORT_URL": f"{bucket}/other"}
        assert open_store(other).read(DAY) == f"other/{DAY}".encode()

    @pytest.mark.parametrize(
        "change",
        [
            {"FER_REPORT_URL": "s3://never-made/fer"},
            {"FER_REPORT_ENDPOINT": "http://127.0.0.1:9"},
            {"FER_S3_CREDENTIALS__REPORT__SECRET_ACCESS_KEY": "wrong-secret"},
            {"FER_S3_CREDENTIALS__REPORT__ACCESS_KEY_ID": "stranger"},
        ],
        ids=["no bucket", "no server", "wrong secret", "unknown key"],
    )
    def test_a_store_that_cannot_be_read_is_no_missing_report(
        self, environ: dict[str, str], change: dict[str, str]
    ) -> None:
        with pytest.raises(StoreUnavailableError, match="bucket does not answer") as caught:
            open_store(environ | change).read(DAY)
        for value in change.values():
            assert value not in str(caught.value)
