"""The upgrade of a database and an erasure log that have the SHA-256 of keys."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fer_batch.database import connections
from fer_batch.deletion import conversion, erasure_log, replay
from fer_batch.errors import ErasureSecretError
from tests.deletion.conftest import DAY
from tests.fixtures.servers import SECRET, build_settings, migrate_to
from tests.fixtures.tables import Tables

ERASED = "north-mall/2026-03-01/door/erased.jpg"
LATER = "north-mall/2026-03-01/door/later.jpg"
FACILITY = """
    INSERT INTO fer.facility (facility_id, name, time_zone, image_kind, key_template, updated_at)
    VALUES ('north-mall', 'North', 'Europe/Berlin', 'crops', '{north-mall/}', now())"""
FORMER = """
    INSERT INTO fer.deletion (kind, facility_id, capture_day, key_sha256, images, faces)
    VALUES ('image', 'north-mall', '2026-03-01', :digest, 1, 1),
        ('day', 'north-mall', '2026-02-01', NULL, 9, 9)"""


def hash_plainly(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def write_former_log(log: Path) -> list[str]:
    """A log of an earlier version: two images, a day, and what a killed process has left."""
    line: dict[str, Any] = {"kind": "image", "facility_id": "north-mall", "capture_day": str(DAY)}
    counts = {"images": 1, "faces": 1, "erased_at": "2026-04-01T00:00:00Z"}
    keys = [hash_plainly(key).hex() for key in (ERASED, LATER)]
    lines = [json.dumps({**line, "key_sha256": key, **counts}) for key in keys]
    day = {**line, "kind": "day", "capture_day": "2026-02-01", "key_sha256": None, **counts}
    lines += ['{"kind": "image", "facil', json.dumps(day)]
    log.write_text("\n".join(lines) + "\n")
    log.chmod(0o640)
    return keys


def test_records_and_log_are_converted_and_the_images_stay_unread(
    postgres_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "erasures.jsonl"
    plain = write_former_log(log)
    former_log = log.read_bytes()
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(former_log)
    engine = connections.create_engine(postgres_url)
    with connections.transaction(engine) as connection:
        migrate_to(connection, "0014")
        connection.execute(sa.text(FACILITY))
        connection.execute(sa.text(FORMER), {"digest": hash_plainly(ERASED)})

    def read(sql: str) -> list[Any]:
        with engine.connect() as connection:
            return list(connection.execute(sa.text(sql)).all())

    file = "SELECT pg_relation_filenode('fer.deletion')"
    former_file = read(file)
    # Without a secret nothing is changed, whether the records or the log need it.
    for kept in (log, tmp_path / "none.jsonl"):
        alone = build_settings(postgres_url, erasure_secret=None, erasure_log=kept)
        with pytest.raises(ErasureSecretError, match=r"(?i)is not set.* nothing was changed"):
            conversion.upgrade(alone)
    assert read("SELECT version_num FROM fer.schema_version") == [("0014",)]
    assert read("SELECT key_sha256 FROM fer.deletion WHERE kind = 'image'")[0][0] == hash_plainly(
        ERASED
    )
    assert log.read_bytes() == former_log

    settings = build_settings(postgres_url, erasure_log=log)
    assert conversion.upgrade(settings) == 3
    assert conversion.upgrade(settings) == 0
    records = "SELECT kind, key_hmac, secret_check, images FROM fer.deletion ORDER BY deletion_id"
    assert read(records) == [
        ("image", SECRET.hash_key(ERASED), SECRET.check, 1),
        ("day", None, None, 9),
    ]
    assert read(file) != former_file  # the former rows are no longer in the table's file either
    with pytest.raises(sa.exc.IntegrityError, match="never changed"), engine.begin() as connection:
        connection.execute(sa.text("UPDATE fer.deletion SET images = 0"))
    engine.dispose()

    converted = erasure_log.read(log, SECRET)
    assert converted == erasure_log.read(copy, SECRET)  # copies of earlier versions can be replayed
    assert [each.key_hmac for each in converted.erasures] == [
        SECRET.hash_key(ERASED), SECRET.hash_key(LATER), None,
    ]  # fmt: skip
    assert (converted.unreadable, converted.incomparable) == ([3], [])
    assert not any(digest in log.read_text() for digest in plain)
    assert (stat.S_IMODE(log.stat().st_mode), [*tmp_path.glob(".fer-batch*")]) == (0o640, [])

    tables = Tables(postgres_url)
    assert tables.list([ERASED, LATER, "new.jpg"]) == (3, 2)
    # The log knows an erasure that the database does not.
    done = replay.replay(tables.admin, converted.erasures, log, SECRET)
    assert [(each.kind, each.images) for each in done] == [("image", 1)]
    assert [image.key for image in tables.list_work()] == ["new.jpg"]
    tables.dispose()
