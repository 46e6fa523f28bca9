from __future__ import annotations

import socket
import urllib.error
import urllib.request

import pytest
from botocore.exceptions import ClientError

from fer_batch.local.stack.seaweed import SeaweedServer
from tests.support.processes import (
    find_listening_addresses,
    find_main_process,
    find_processes,
    kill_all,
    read_modes,
)

from .conftest import s3_client


@pytest.fixture
def server(folder):
    server = SeaweedServer(folder / "s3")
    yield server
    server.kill()


def write(server):
    client = s3_client(server)
    client.create_bucket(Bucket="kept")
    for number in range(20):
        client.put_object(Bucket="kept", Key=f"día {number}.jpg", Body=b"\xff%d" % number)


def read(server):
    client = s3_client(server)
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="kept")["Contents"]]
    return {key: client.get_object(Bucket="kept", Key=key)["Body"].read() for key in keys}


WRITTEN = {f"día {number}.jpg": b"\xff%d" % number for number in range(20)}


def test_objects_and_address_survive_a_restart(server):
    server.start()
    write(server)
    before = (server.endpoint, server.access_key_id, server.secret_access_key)
    server.stop()
    assert not server.is_running()
    server.start()
    assert read(server) == WRITTEN
    assert (server.endpoint, server.access_key_id, server.secret_access_key) == before


def test_starts_after_all_processes_were_killed_without_data_loss(folder, server):
    server.start()
    write(server)
    kill_all(folder)
    assert not server.is_running()
    server.start()
    s3_client(server).put_object(Bucket="kept", Key="new.jpg", Body=b"new")
    assert read(server) == {**WRITTEN, "new.jpg": b"new"}


def test_a_running_server_of_an_earlier_run_is_reused(folder, server):
    server.start()
    before = find_main_process(folder)
    later = SeaweedServer(folder / "s3")
    later.start()
    assert find_main_process(folder) == before
    later.kill()
    assert not server.is_running()


def test_uses_other_ports_if_the_previous_ones_are_taken(server):
    server.start()
    write(server)
    before = server.endpoint
    server.kill()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(before.rpartition(":")[2])))
        other.listen()
        server.start()
        assert server.endpoint != before
        assert read(server) == WRITTEN


def test_listens_on_this_machine_only(seaweed_server):
    assert find_listening_addresses(seaweed_server.folder) == {"127.0.0.1"}


def test_a_wrong_key_is_refused(s3, seaweed_server):
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        s3_client(seaweed_server, "wrong").list_objects_v2(Bucket=s3.bucket)


def test_internal_ports_refuse_a_request_without_a_token(s3, seaweed_server):
    s3.client.put_object(Bucket=s3.bucket, Key="face.jpg", Body=b"x")
    filer = seaweed_server.read_ports()["filer"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"http://127.0.0.1:{filer}/buckets/{s3.bucket}/face.jpg")


def test_a_conditional_write_does_not_overwrite_an_object(s3):
    s3.client.put_object(Bucket=s3.bucket, Key="once", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.client.put_object(Bucket=s3.bucket, Key="once", Body=b"2", IfNoneMatch="*")
    assert s3.client.get_object(Bucket=s3.bucket, Key="once")["Body"].read() == b"1"


def test_a_changed_object_is_not_read_by_its_old_etag(s3):
    etag = s3.client.put_object(Bucket=s3.bucket, Key="face", Body=b"1")["ETag"]
    s3.client.put_object(Bucket=s3.bucket, Key="face", Body=b"2")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.client.get_object(Bucket=s3.bucket, Key="face", IfMatch=etag)


def test_secrets_and_data_are_not_accessible_to_other_users(seaweed_server):
    folder = seaweed_server.folder
    found = read_modes(folder)
    assert {"s3.json", "weed.options", "security.toml", "secret_access_key"} <= found.keys()
    assert set(found.values()) == {"600"}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert seaweed_server.secret_access_key not in " ".join(find_processes(folder)[0].cmdline())
