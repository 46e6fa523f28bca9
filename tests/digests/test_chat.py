"""Digests posted to a chat: a real receiver of webhooks, and what its answers become."""

from __future__ import annotations

from typing import Any

import pytest

from fer_batch.digests import chat
from fer_batch.digests.content import Digest, Entry, Section
from fer_batch.errors import ConfigurationError, DeliveryError, DeliveryUnavailableError
from fer_batch.settings import Settings
from tests.support.receivers import ChatServer

DIGEST = Digest(
    "Café & <!channel>: 1 below target",
    "title",
    [Section("Since last week", [Entry("fell by *12* points.", "Café <b>")])],
    [],
    "https://airflow.example.com/satisfaction/2026-11-29.html",
    "now",
)


def build_settings(url: str) -> Settings:
    values: dict[str, Any] = {"chat_urls": {"north": url}}
    return Settings(_env_file=None, **values)


def test_a_web_address_gets_a_json_document(chat_server: ChatServer) -> None:
    chat.send(build_settings(f"{chat_server.url}/hook/s3cr3t"), "north", DIGEST)
    [(path, post)] = chat_server.posts
    assert path == "/hook/s3cr3t"
    assert post["title"] == DIGEST.subject
    assert post["message"].splitlines() == [
        "Since last week:",
        "- Café <b>: fell by *12* points.",
        DIGEST.link,
    ]


def test_a_url_of_apprise_gets_the_format_of_its_service(chat_server: ChatServer) -> None:
    url = f"mmost://{chat_server.url.removeprefix('http://')}/{'k' * 26}"
    chat.send(build_settings(url), "north", DIGEST)
    [(path, post)] = chat_server.posts
    assert path == f"/hooks/{'k' * 26}"
    assert "fell by *12* points." in post["text"]
    assert "Apprise" not in str(post)


@pytest.mark.parametrize(
    ("url", "service"),
    [
        ("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "Slack"),
        (
            "https://prod-1.westeurope.logic.azure.com:443/workflows/643e69f83c8944/triggers/"
            "manual/paths/invoke?api-version=2016-06-01&sig=KODuebWbDGYFr0z0eu",
            "Workflows",  # Microsoft Teams
        ),
        ("https://chat.example.com/hook/1", "JSON"),
    ],
)
def test_the_webhooks_of_slack_and_teams_are_recognized(url: str, service: str) -> None:
    assert type(chat.find_service(build_settings(url), "north")).__name__ == f"Notify{service}"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, DeliveryError) for status in (400, 403, 404)),
        *((status, DeliveryUnavailableError) for status in (429, 503)),
    ],
)
def test_the_answer_decides_whether_a_retry_helps(
    chat_server: ChatServer,
    status: int,
    error: type[Exception],
    capfd: pytest.CaptureFixture[str],
) -> None:
    chat_server.status = status
    with pytest.raises(error, match=f"'north'.*{status}") as caught:
        chat.send(build_settings(f"{chat_server.url}/s3cr3t"), "north", DIGEST)
    assert "s3cr3t" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_chat_that_does_not_answer_is_tried_again() -> None:
    with pytest.raises(DeliveryUnavailableError, match="north"):
        chat.send(build_settings("http://127.0.0.1:9/s3cr3t"), "north", DIGEST)


def test_a_chat_without_a_usable_webhook_names_the_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"FER_CHAT_URLS__SOUTH.*fer_chat_south"):
        chat.find_service(build_settings("http://x"), "south")
    with pytest.raises(ConfigurationError, match="FER_CHAT_URLS__NORTH") as caught:
        chat.find_service(build_settings("s3cr3t"), "north")
    assert "s3cr3t" not in str(caught.value)
