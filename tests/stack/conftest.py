"""Servers of a test's own, in a folder that other users can pass through."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from fer_batch.stack.files import PASSABLE, own_folder
from fer_batch.stack.seaweed import SeaweedServer
from tests.support.processes import kill_all, processes_in


@pytest.fixture
def folder(servers_dir: Path) -> Iterator[Path]:
    """A folder outside of closed homes; nothing may run from it when the test is over."""
    path = own_folder(servers_dir / secrets.token_hex(4), PASSABLE)
    yield path
    left = processes_in(path)
    kill_all(path)
    shutil.rmtree(path)
    assert not left, f"still running: {left}"


def s3_client(server: SeaweedServer, secret_access_key: str | None = None):
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.access_key_id,
        aws_secret_access_key=secret_access_key or server.secret_access_key,
    )
