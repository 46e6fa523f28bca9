"""Servers for a single test, in a folder that other users can traverse."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from fer_batch.local.stack.files import TRAVERSABLE, ensure_private_directory
from fer_batch.local.stack.seaweed import SeaweedServer
from tests.support.processes import find_processes, kill_all


@pytest.fixture
def folder(servers_dir: Path) -> Iterator[Path]:
    """A folder outside of private homes; no process of it may run after the test."""
    path = ensure_private_directory(servers_dir / secrets.token_hex(4), TRAVERSABLE)
    yield path
    left = find_processes(path)
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
