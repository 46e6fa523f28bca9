"""The folder of the reports: whole files, no part of an earlier version, and an index."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest

from fer_batch.errors import ConfigurationError, EndpointUnreachableError
from fer_batch.reporting import store
from fer_batch.settings import Settings
from fer_batch.storage.folder import LocalFolder
from fer_batch.storage.object_folder import ObjectFolder, open_report_folder
from fer_batch.storage.writer import ensure_bucket

DAY = date(2026, 11, 29)


def render_index(days: Sequence[date]) -> str:
    return " ".join(map(str, days))


def read(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_files_and_index_are_written(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, report_dir=tmp_path / "reports")
    files = {"2026-11-29.html": "day", "2026-11-29.north.html": "north"}
    path = store.publish(settings, DAY, files, render_index)
    assert path == settings.report_dir / "2026-11-29.html"
    assert read(settings.report_dir) == files | {"index.html": "2026-11-29"}
    store.publish(settings, date(2026, 12, 1), {"2026-12-01.html": "next"}, render_index)
    assert read(settings.report_dir)["index.html"] == "2026-12-01 2026-11-29"


def test_parts_of_an_earlier_version_are_deleted_and_nothing_else(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, report_dir=tmp_path)
    kept = {"2026-11-28.north.html": "", "2026-11-29.xlsx": "", "notes.html": ""}
    for name in (*kept, "2026-11-29.south.html"):
        (tmp_path / name).write_text("")
    files = {"2026-11-29.html": "day", "2026-11-29.north.html": "north"}
    store.publish(settings, DAY, files, render_index)
    assert set(read(tmp_path)) == {*kept, *files, "index.html"}


@pytest.mark.parametrize(
    "name",
    [
        *("../2026-11-29.html", "2026-11-29.html/", "index.html\n", "2026-11-29..html", ".html"),
        *("2026-11-29.a/b.html", "2026-11-29.A.html", "index.HTML", "2026-11-29.html.bak"),
    ],
)
def test_other_names_are_no_report_files(name: str) -> None:
    assert not store.FILE_NAME.fullmatch(name)


def test_a_file_is_replaced_atomically(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path / "reports")
    folder.write("day.html", "first")
    folder.write("day.html", "second")
    assert read(folder.path) == {"day.html": "second"}


def test_a_full_disk_leaves_the_earlier_file(tmp_path: Path) -> None:
    (tmp_path / "day.html").write_text("earlier")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as full:
            LocalFolder(tmp_path).write("day.html", "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert full.value.filename == str(tmp_path / "day.html")
    assert read(tmp_path) == {"day.html": "earlier"}


def test_the_keys_that_read_images_do_not_publish(tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None, report_dir=tmp_path, s3_access_key_id="a", s3_secret_access_key="b"
    )
    with pytest.raises(ConfigurationError, match="'report' are not set"):
        open_report_folder(settings, "s3://reports/fer")


@pytest.mark.parametrize("url", ["reports", "https://reports/fer", "s3://", "s3://a/b?c"])
def test_other_urls_are_rejected(url: str) -> None:
    with pytest.raises(ConfigurationError, match="FER_REPORT_URL"):
        open_report_folder(Settings(_env_file=None), url)


def read_objects(folder: ObjectFolder) -> dict[str, str]:
    return {
        name: folder._boto.get_object(Bucket=folder._location.bucket, Key=folder._prefix + name)[
            "Body"
        ]
        .read()
        .decode()
        for name in folder.list()
    }


def test_the_files_are_published_to_s3_with_keys_of_their_own(
    s3_settings: Settings, tmp_path: Path
) -> None:
    """Those that read images are wrong here: they are not used."""
    keys = {
        "access_key_id": s3_settings.s3_access_key_id,
        "secret_access_key": s3_settings.s3_secret_access_key,
    }
    settings = Settings(
        _env_file=None,
        report_dir=tmp_path,
        report_url=f"s3://{s3_settings.s3_bucket}/reports/fer/",
        report_endpoint=s3_settings.s3_endpoint,
        s3_endpoint="http://127.0.0.1:9",
        s3_access_key_id="reads-images",
        s3_secret_access_key="wrong",
        s3_credentials={"report": keys},
    )
    ensure_bucket(s3_settings, s3_settings.s3_bucket)
    store.publish(settings, DAY, {"2026-11-29.html": "ä", "2026-11-29.a.html": ""}, render_index)
    store.publish(settings, DAY, {"2026-11-29.html": "ö"}, render_index)
    folder = open_report_folder(settings, f"s3://{s3_settings.s3_bucket}/reports/fer")
    assert read_objects(folder) == {"2026-11-29.html": "ö", "index.html": "2026-11-29"}
    assert read_objects(folder) == read(tmp_path)
    head = folder._boto.head_object(Bucket=s3_settings.s3_bucket, Key="reports/fer/2026-11-29.html")
    assert head["ContentType"] == "text/html; charset=utf-8"


def test_an_unreachable_report_server_names_its_setting(tmp_path: Path) -> None:
    keys = {"access_key_id": "a", "secret_access_key": "b"}
    settings = Settings(
        _env_file=None,
        report_dir=tmp_path,
        report_url="s3://reports",
        report_endpoint="http://127.0.0.1:9",
        s3_credentials={"report": keys},
        s3_timeout_s=1.0,
    )
    with pytest.raises(EndpointUnreachableError) as unreachable:
        store.publish(settings, DAY, {"2026-11-29.html": "day"}, render_index)
    assert "FER_REPORT_ENDPOINT" in str(unreachable.value)
    assert "2026-11-29.html" in read(tmp_path)  # the folder has the report all the same
