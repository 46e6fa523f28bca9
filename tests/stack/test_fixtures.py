"""The fixtures that every other test stands on."""

from __future__ import annotations

import socket

import psycopg
import pytest
from botocore.exceptions import ClientError


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_an_empty_database_of_its_own(postgres_url, turn):
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create table mine (turn int)")  # fails if the other one's is there
        assert connection.execute("select count(*) from mine").fetchone() == (0,)


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_an_empty_bucket_of_its_own(s3, turn):
    assert "Contents" not in s3.client.list_objects_v2(Bucket=s3.bucket)
    s3.client.put_object(Bucket=s3.bucket, Key="a/b.jpg", Body=b"\xff")
    assert s3.client.get_object(Bucket=s3.bucket, Key="a/b.jpg")["Body"].read() == b"\xff"


def test_a_bucket_is_never_made_by_writing_into_it(s3):
    with pytest.raises(ClientError, match="NoSuchBucket"):
        s3.client.put_object(Bucket="no-such-bucket", Key="a", Body=b"")


def test_tests_reach_this_machine_only():
    with pytest.raises(ConnectionRefusedError, match="only talk to 127"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(socket.gaierror, match="may not resolve"):
        socket.getaddrinfo("example.org", 80)
