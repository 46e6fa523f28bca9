"""The fixtures that all other tests use."""

from __future__ import annotations

import socket

import psycopg
import pytest
from botocore.exceptions import ClientError


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_its_own_empty_database(postgres_url, turn):
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "create table mine (turn int)"
        )  # fails if the table of the other test exists
        assert connection.execute("select count(*) from mine").fetchone() == (0,)


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_its_own_empty_bucket(s3, turn):
    assert "Contents" not in s3.client.list_objects_v2(Bucket=s3.bucket)
    s3.client.put_object(Bucket=s3.bucket, Key="a/b.jpg", Body=b"\xff")
    assert s3.client.get_object(Bucket=s3.bucket, Key="a/b.jpg")["Body"].read() == b"\xff"


def test_writing_does_not_create_a_bucket(s3):
    with pytest.raises(ClientError, match="NoSuchBucket"):
        s3.client.put_object(Bucket="no-such-bucket", Key="a", Body=b"")


def test_tests_reach_this_machine_only():
    with pytest.raises(ConnectionRefusedError, match="only talk to 127"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(socket.gaierror, match="may not resolve"):
        socket.getaddrinfo("example.org", 80)
