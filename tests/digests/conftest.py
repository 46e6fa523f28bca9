"""Fixtures: a mail server and a receiver of webhooks, and settings that use them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.satisfaction.conftest import calendar
from tests.support.receivers import (
    ChatServer,
    SmtpServer,
    chat_server_running,
    smtp_server_running,
)

__all__ = ["calendar"]


@pytest.fixture
def smtp_server() -> Iterator[SmtpServer]:
    """A mail server without encryption and login."""
    with smtp_server_running() as server:
        yield server


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    with chat_server_running() as server:
        yield server
