"""The erasure log: a file of its own, on the disk before the commit, repeated after a restore."""

from __future__ import annotations

import fcntl
import json
import re
import stat
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from pydantic import SecretStr

from fer_batch import files
from fer_batch.database import connections
from fer_batch.database.erased_keys import NO_SECRET, ErasureSecret
from fer_batch.deletion import erasure, erasure_log, replay
from fer_batch.deletion.erasure import Target
from fer_batch.deletion.erasure_log import LoggedErasure
from fer_batch.errors import ConfigurationError, ErasureSecretError
from fer_batch.records import Batch
from tests.deletion.conftest import DAY, NEXT, build_line, count_rows, read_newest
from tests.fixtures.servers import SECRET


def build_day(**others: Any) -> LoggedErasure:
    return build_line(kind="day", key_hmac=None, secret_check=None, **others)


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Whatever a killed process has left; each erasure once."""
    log = tmp_path / "erasures.jsonl"
    first, second = build_line(), build_day(images=40)
    erasure_log.append(log, first)
    with log.open("ab") as file:
        file.write(b'{"kind": "image", "facil')  # killed here
    erasure_log.append(log, second)
    erasure_log.append(log, build_line(images=0))
    assert erasure_log.read(log, SECRET) == erasure_log.Log([first, second], [2], [])
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError, match=r"cannot be read: No such file"):
        erasure_log.read(tmp_path / "nowhere", SECRET)
    with pytest.raises(ConfigurationError, match=r"cannot be written: No such file"):
        erasure_log.append(tmp_path / "no" / "folder", first)


def test_a_line_that_is_appended_during_a_conversion_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is replaced while another process waits for its lock."""
    log = tmp_path / "erasures.jsonl"
    former = json.dumps(
        {"kind": "image", "facility_id": "a", "capture_day": str(DAY), "key_sha256": "6" * 64,
         "images": 1, "faces": 1, "erased_at": "2026-04-01T00:00:00Z"}
    )  # fmt: skip
    log.write_text(former)
    erasure_log.append(log, build_line())
    link = tmp_path / "link.jsonl"
    link.symlink_to(log)
    (tmp_path / "backup.jsonl").hardlink_to(log)  # the replaced file still exists
    with ThreadPoolExecutor(1) as pool:
        is_waiting, flock = Event(), fcntl.flock

        def tell(descriptor: int, operation: int) -> None:
            is_waiting.set()
            flock(descriptor, operation)

        @contextmanager
        def replace(path: Path) -> Iterator[Path]:
            monkeypatch.setattr(fcntl, "flock", tell)
            appended.append(pool.submit(erasure_log.append, log, build_line(facility_id="b")))
            assert is_waiting.wait(60)
            monkeypatch.setattr(fcntl, "flock", flock)
            with files.replacing(path) as temporary:
                yield temporary

        appended: list[Future[None]] = []
        monkeypatch.setattr(erasure_log, "replacing", replace)
        assert erasure_log.convert(link, SECRET) == 1
        appended[0].result()
    read = erasure_log.read(link, SECRET)
    assert [each.facility_id for each in read.erasures] == ["a", "north-mall", "b"]
    assert "key_sha256" not in log.read_text()
    assert link.is_symlink()


def test_lines_of_another_secret_are_recognized(tmp_path: Path) -> None:
    log = tmp_path / "erasures.jsonl"
    erasure_log.append(log, build_line())
    erasure_log.append(log, build_day())
    other = ErasureSecret(SecretStr("another secret of at least 32 characters"))
    for secret in (other, NO_SECRET):
        assert erasure_log.read(log, secret) == erasure_log.Log([build_day()], [], [1])
    day = log.read_text().splitlines()[1]
    with log.open("a") as file:
        file.write(day.replace('"key_hmac":null,"secret_check"', '"key_sha256"') + "\n")
    assert erasure_log.count_former(log) == 1
    before = log.read_text()
    with pytest.raises(ErasureSecretError, match=r"line 1 of .* FER_ERASURE_SECRET is another one"):
        erasure_log.convert(log, other)
    assert log.read_text() == before


def test_nothing_is_erased_that_cannot_be_logged(
    tables: Any, two_days: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match=r"erasure log .* cannot be written"):
        erasure.erase(tables.eraser, Target("north-mall", DAY), tmp_path, SECRET)
    assert count_rows(tables, two_days[0]) == (40, 40, 40)
    assert tables.query("SELECT 1 FROM fer.deletion") == []

    log = tmp_path / "erasures.jsonl"
    seen = []
    append = erasure_log.append

    def look(path: Path, line: LoggedErasure) -> None:
        append(path, line)
        seen.append((log.read_bytes(), tables.query("SELECT 1 FROM fer.deletion")))

    monkeypatch.setattr(erasure_log, "append", look)
    erasure.erase(tables.eraser, Target("north-mall", DAY, "000003.jpg"), log, SECRET)
    written, recorded_then = seen[0]
    assert recorded_then == []  # not committed yet
    assert b"000003" not in written
    (line,) = erasure_log.read(log, SECRET).erasures
    ((digest, images, faces),) = tables.query("SELECT key_hmac, images, faces FROM fer.deletion")
    assert (line.key_hmac, line.images, line.faces) == (digest, images, faces)


def test_erasures_that_the_database_does_not_know_are_repeated(
    tables: Any, two_days: Any, tmp_path: Path
) -> None:
    """Of rows that exist, and of rows that do not; a second time nothing is left to do."""
    old, new = two_days
    other, stored = SECRET.hash_key("never listed.jpg"), SECRET.hash_key("000003.jpg")
    absent = date(2026, 3, 20)
    lines = [
        build_line(key_hmac=stored),
        build_line(key_hmac=other),
        build_day(capture_day=NEXT, images=50, faces=50),
        build_day(capture_day=absent, images=7, faces=7),
        build_line(facility_id="nobody"),
    ]
    log = tmp_path / "erasures.jsonl"
    erasure_log.append(log, lines[0])  # the log of this database has it already

    with connections.transaction(tables.eraser) as connection:
        assert replay.find_unknown_facilities(connection, lines) == ["nobody"]
    done = replay.replay(tables.eraser, lines, log, SECRET)

    assert [(each.kind, each.images) for each in done] == [
        ("day", 50), ("day", 0), ("image", 1), ("image", 0),
    ]  # fmt: skip
    assert count_rows(tables, old) == (39, 39, 39)
    assert count_rows(tables, new) == (0, 0, 0)
    # The images are left out as before the restore, and are not listed again.
    summary = read_newest(tables, old)
    assert (summary.images, summary.not_scored) == (41, {"erased": 2})
    assert read_newest(tables, new).not_scored == {"erased": 50}
    assert tables.list(["000003.jpg", "never listed.jpg", "new.jpg"], old)[1] == 1
    assert erasure_log.read(log, SECRET) == erasure_log.Log(
        [lines[0], *lines[2:4], lines[1]], [], []
    )
    assert replay.replay(tables.eraser, lines, log, SECRET) == []


def test_whole_days_are_repeated_before_images_so_that_a_lost_secret_is_not_needed(
    tables: Any, two_days: Any, tmp_path: Path, repo_root: Path
) -> None:
    """The backup has an image of the lost secret. Since then its day was erased as a whole."""
    page = (repo_root / "docs" / "privacy.md").read_text(encoding="utf-8")
    find_keys, list_days = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert tables.query(find_keys) == []
    lost = ErasureSecret(SecretStr("the lost secret of at least 32 characters"))
    erasure.erase(tables.eraser, Target("north-mall", DAY, "000003.jpg"), None, lost)
    image = build_line(capture_day=NEXT, key_hmac=SECRET.hash_key("000005.jpg"))
    log = tmp_path / "erasures.jsonl"
    assert tables.query(list_days) == [("north-mall", DAY)]
    with pytest.raises(ErasureSecretError):
        replay.replay(tables.eraser, [image], log, SECRET)
    done = replay.replay(tables.eraser, [image, build_day(images=40)], log, SECRET)
    assert [(each.kind, each.images) for each in done] == [("day", 39), ("image", 1)]
    assert [count_rows(tables, batch)[0] for batch in two_days] == [0, 49]
    assert tables.query(list_days) == [("north-mall", NEXT)]


def test_an_image_that_is_not_listed_yet_is_never_read(tables: Any, tmp_path: Path) -> None:
    """Somebody objects on the same day, before the night."""
    log, batch = tmp_path / "erasures.jsonl", Batch("north-mall", date(2026, 3, 20))
    key = "north-mall/2026-03-20/door/1.jpg"
    for expected in ([(batch.capture_day, 0)], []):
        erased = erasure.erase_unlisted(tables.eraser, Target("north-mall", None, key), log, SECRET)
        assert [(each.capture_day, each.images) for each in erased] == expected
    (line,) = erasure_log.read(log, SECRET).erasures
    assert (line.capture_day, line.kind, line.images) == (batch.capture_day, "image", 0)
    other = "north-mall/2026-03-20/door/2.jpg"
    assert tables.list([key, other], batch) == (2, 1)
    # One that a run has listed meanwhile is erased like any other.
    (erased_row,) = erasure.erase_unlisted(
        tables.eraser, Target("north-mall", None, other), log, SECRET
    )
    assert (erased_row.images, tables.list_work(batch)) == (1, [])
    for facility_id, wrong in (("north-mall", "south-mall/2026-03-20/1.jpg"), ("nobody", key)):
        with pytest.raises(ConfigurationError, match=r"does not fit|no facility 'nobody'"):
            erasure.erase_unlisted(tables.eraser, Target(facility_id, None, wrong), log, SECRET)


@pytest.mark.parametrize("is_replay", [False, True])
def test_an_image_is_erased_on_whatever_day_it_is_listed(
    tables: Any, tmp_path: Path, *, is_replay: bool
) -> None:
    """The registry changed since it was listed, so its key belongs to another day today.

    The facility had another id too.
    """
    log, key = tmp_path / "erasures.jsonl", "north-mall/2026-03-20/door/1.jpg"
    today, listed = date(2026, 3, 20), [Batch("north-mall", date(2026, 3, day)) for day in (19, 21)]
    tables.add("mall", key_template="north-mall/{capture_day:%Y-%m-%d}/")
    listed.append(Batch("mall", date(2026, 3, 20)))
    for batch in listed:
        tables.list([key, "other.jpg"], batch)
        tables.write(*(tables.build_score(image) for image in tables.list_work(batch)))
    del tables.facilities["mall"]
    tables.add("north-mall")
    if is_replay:
        line = build_line(capture_day=today, key_hmac=SECRET.hash_key(key))
        (done,) = replay.replay(tables.eraser, [line], log, SECRET)
        assert done.images == 3
        assert replay.replay(tables.eraser, [line], log, SECRET) == []
    else:
        target = Target("north-mall", None, key)
        with connections.transaction(tables.eraser) as connection:  # shown before it is confirmed
            found = erasure.find_erasable(connection, target, SECRET, accept_unlisted=True)
        erased = erasure.erase_unlisted(tables.eraser, target, log, SECRET)
        assert [(each.capture_day, each.images) for each in erased] == [
            (each.capture_day, each.images) for each in found
        ]
        assert len(erasure_log.read(log, SECRET).erasures) == 3
        assert erasure.erase_unlisted(tables.eraser, target, log, SECRET) == []
    assert [count_rows(tables, batch) for batch in listed] == [(1, 1, 1)] * 3
    assert tables.list([key], Batch("north-mall", today)) == (1, 0)
