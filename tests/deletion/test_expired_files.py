"""Expired reports, exports and temporary files are deleted, and nothing else."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_batch.deletion import expired_files
from fer_batch.deletion.expired import Expired
from fer_batch.errors import ConfigurationError, EndpointUnreachableError
from fer_batch.export import publishing
from fer_batch.export.places import open_places
from fer_batch.reporting import store
from fer_batch.settings import Settings
from fer_batch.storage.folder import LocalFolder
from fer_batch.storage.writer import ensure_bucket

TODAY = date(2026, 11, 30)
OTHERS = (
    "notes.html",
    "2026-01-02.xlsx",
    "2026-02-30.html",
    "2026-01-02.A.html",
    ".2026-01-02.html",
)


def list_links(days: Sequence[date]) -> str:
    return " ".join(map(str, days))


@settings(max_examples=30)
@given(
    st.sets(st.dates(date(2026, 1, 1), date(2026, 3, 1)), max_size=8),
    st.dates(date(2026, 1, 1), date(2026, 3, 1)),
)
def test_exactly_the_reports_before_a_day_vanish_with_their_parts_and_links(
    days: set[date], before: date
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = LocalFolder(Path(name))
        for day in days:
            for file in (store.make_day_name(day), store.make_part_name(day, "north-2")):
                folder.write(file, "")
        for other in OTHERS:
            (folder.path / other).touch()
        (folder.path / "2025-01-01.html").symlink_to("notes.html")
        expired = store.find_expired(folder, before)
        assert store.delete_expired(folder, before, list_links, nullcontext) == len(expired)
        kept = sorted(day for day in days if day >= before)
        files = {n for d in kept for n in (f"{d}.html", f"{d}.north-2.html")}
        index = folder.path / "index.html"
        if expired:
            assert index.read_text() == list_links(kept[::-1])
            index.unlink()
        assert {path.name for path in folder.path.iterdir()} == {*files, *OTHERS, "2025-01-01.html"}
        assert (
            store.delete_expired(folder, before, list_links, nullcontext) == 0
        )  # and writes nothing
        assert not index.exists()


def test_an_interrupted_deletion_leaves_no_link_to_a_deleted_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = LocalFolder(tmp_path)
    days = [date(2026, 1, 1), date(2026, 1, 2), date(2026, 3, 1)]
    for day in days:
        folder.write(store.make_day_name(day), "")
        folder.write(store.make_part_name(day, "north"), "")
    (tmp_path / "index.html").write_text(list_links(days))

    def fail(name: str) -> None:
        raise OSError(5, "interrupted", name)

    monkeypatch.setattr(folder, "delete", fail)
    with pytest.raises(OSError, match="interrupted"):
        store.delete_expired(folder, date(2026, 2, 1), list_links, nullcontext)
    assert (tmp_path / "index.html").read_text() == "2026-03-01"
    monkeypatch.undo()
    assert store.delete_expired(folder, date(2026, 2, 1), list_links, nullcontext) == 4
    (tmp_path / "2026-02-30.html").touch()  # no day, so no report
    loaded = Settings(_env_file=None, report_dir=tmp_path)
    store.publish(loaded, date(2026, 3, 2), {"2026-03-02.html": ""}, list_links)
    assert (tmp_path / "index.html").read_text() == "2026-03-02 2026-03-01"


@pytest.mark.parametrize("kind", ["reports", "exports"])
def test_files_are_deleted_under_a_lock_that_is_given_up_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A night waits for a part of them only, and the database ends no transaction that idles."""
    module = store if kind == "reports" else publishing
    monkeypatch.setattr(module, "DELETED_FILES", 3)
    deleted: list[list[str]] = []
    is_locked = False

    @contextmanager
    def locked() -> Iterator[None]:
        nonlocal is_locked
        deleted.append([])
        if kind == "reports":  # a night writes the index too: all reports that it finds
            if deleted[1:]:
                assert (tmp_path / "index.html").read_text() == "2026-03-01"
            (tmp_path / "index.html").write_text("all")
        else:  # a night finds a place that is whole
            assert json.loads((tmp_path / publishing.MARKER).read_bytes())["is_complete"]
        is_locked = True
        yield
        is_locked = False

    folder = LocalFolder(tmp_path)
    delete = folder.delete

    def delete_locked(name: str) -> None:
        assert is_locked
        delete(name)
        deleted[-1].append(name)

    monkeypatch.setattr(folder, "delete", delete_locked)
    if kind == "reports":
        for day in [date(2026, 1, 1), date(2026, 1, 2), date(2026, 3, 1)]:
            folder.write(store.make_day_name(day), "")
            folder.write(store.make_part_name(day, "north"), "")
        assert store.delete_expired(folder, date(2026, 2, 1), list_links, locked) == 4
        assert (tmp_path / "index.html").read_text() == "2026-03-01"
        assert [*map(len, deleted)] == [2, 2]
    else:
        for month in range(1, 9):
            folder.write(name_export(f"2026-0{month}"), b"x")
        folder.write(publishing.MARKER, b'{"is_complete": true}')
        assert publishing.delete_expired(folder, date(2026, 8, 1), locked) == 7
        assert [*map(len, deleted)] == [3, 3, 1]


def find_kinds(loaded: Settings) -> dict[str, expired_files.FileKind]:
    return {kind.name: kind for kind in expired_files.list_kinds(loaded)}


def name_export(month: str) -> str:
    return f"{publishing.FOLDER}span=day/facility=a/month={month}/satisfaction.parquet"


def test_what_would_be_deleted_needs_no_database(tmp_path: Path) -> None:
    """The day of the cutoff is kept; a month is deleted when its last day is before the cutoff."""
    loaded = Settings(
        _env_file=None,
        report_dir=tmp_path / "reports",
        export_dir=tmp_path / "export",
        report_retention_days=30,
        retention_days=30,
        summary_retention_days=30,
    )
    kinds = find_kinds(loaded)
    assert list(kinds) == ["temporary files", "reports", "exports"]
    reports = kinds["reports"].find(TODAY)
    assert reports == Expired(
        "reports", "FER_REPORT_RETENTION_DAYS", date(2026, 10, 31), 0, "files"
    )
    for day in (date(2026, 10, 30), date(2026, 10, 31)):
        LocalFolder(loaded.report_dir).write(store.make_day_name(day), "")
    assert kinds["reports"].find(TODAY).count == 1
    for month in ("2026-09", "2026-10", "2026-13"):
        LocalFolder(tmp_path / "export").write(name_export(month), b"x")
    assert kinds["exports"].find(TODAY).count == 1
    assert kinds["exports"].find(TODAY + timedelta(1)).count == 2


def test_a_folder_that_cannot_be_read_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("not a folder")
    kinds = find_kinds(Settings(_env_file=None, report_dir=tmp_path / "reports"))
    for name in ("temporary files", "reports"):
        with pytest.raises(ConfigurationError, match=f"expired {name} cannot be deleted.*Let the"):
            kinds[name].find(TODAY)


def test_temporary_files_of_killed_processes_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    export = tmp_path / "export"
    loaded = Settings(_env_file=None, report_dir=tmp_path / "reports", export_dir=export)
    name = name_export("2026-10")
    LocalFolder(export).write(name, b"x")
    left = [
        loaded.report_dir / ".fer-batch-0123456789abcdef.tmp",
        (export / name).with_name(".fer-batch-0123456789abcdef.tmp"),
        tmp_path / "fer-batch-tmp-abcdefgh" / "network.onnx",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    kind = find_kinds(loaded)["temporary files"]
    assert kind.delete(datetime.now(UTC).date()).count == 0  # they may be in use
    assert all(path.exists() for path in left)
    later = datetime.now(UTC).date() + timedelta(loaded.temporary_file_days + 2)
    assert kind.find(later).count == kind.delete(later).count == 3
    assert not any(path.exists() for path in left)
    assert kind.delete(later).count == 0
    assert (export / name).exists()


def test_folders_and_s3_are_cleared_and_one_that_fails_does_not_prevent_the_others(
    tables: Any, s3_settings: Settings, tmp_path: Path
) -> None:
    keys = {
        "access_key_id": s3_settings.s3_access_key_id,
        "secret_access_key": s3_settings.s3_secret_access_key,
    }
    bucket = s3_settings.s3_bucket
    ensure_bucket(s3_settings, bucket)
    loaded = Settings(
        _env_file=None,
        database_url=tables.retainer_url,
        report_dir=tmp_path / "reports",
        report_url=f"s3://{bucket}/reports",
        report_endpoint=s3_settings.s3_endpoint,
        export_dir=tmp_path / "export",
        export_url=f"s3://{bucket}/export",
        export_endpoint=s3_settings.s3_endpoint,
        s3_credentials={"report": keys, "export": keys},
    )
    kept, expired = TODAY, TODAY - timedelta(loaded.report_retention_days + 1)
    for day in (expired, kept):
        files = {store.make_day_name(day): "", store.make_part_name(day, "north"): ""}
        store.publish(loaded, day, files, list_links)
    old, new = (name_export(month) for month in ("2020-01", "2026-11"))
    places = open_places(loaded)
    for place in places:
        place.write(old, b"x")
        place.write(new, b"x")
        place.write(publishing.MARKER, json.dumps({"files": {old: "1", new: "2"}}).encode())

    kinds = find_kinds(loaded)
    counts = {name: kind.find(TODAY).count for name, kind in kinds.items()}
    assert counts == {
        "temporary files": 0, "reports": 2, "reports in S3": 2, "exports": 1, "exports in S3": 1,
    }  # fmt: skip
    wrong = find_kinds(loaded.model_copy(update={"report_endpoint": "http://127.0.0.1:9"}))
    with pytest.raises(EndpointUnreachableError, match="FER_REPORT_ENDPOINT"):
        wrong["reports in S3"].delete(TODAY)
    assert {name: kind.delete(TODAY).count for name, kind in kinds.items()} == counts
    assert {kind.delete(TODAY).count for kind in kinds.values()} == {0}
    for place in places:
        assert place.list(publishing.FOLDER, with_folders=True) == [publishing.MARKER, new]
        marker = json.loads(place.read(publishing.MARKER) or b"")
        assert (marker["is_complete"], marker["files"]) == (True, {new: "2"})
    index = (loaded.report_dir / "index.html").read_text()
    assert (f"{kept}.html" in index, f"{expired}.html" in index) == (True, False)
