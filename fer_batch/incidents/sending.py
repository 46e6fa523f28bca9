"""Sends a message about an incident to everybody who is to be told, by mail and to chats.

A recipient who cannot be reached does not affect the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, SecretStr

from fer_batch.digests import chat
from fer_batch.digests.mail import MailServer, build_text_message
from fer_batch.digests.subscriptions import check_address
from fer_batch.errors import ConfigurationError, FerError, PermanentError, explain_exception
from fer_batch.incidents.incident import Incident, Message, write_message
from fer_batch.log import get_logger
from fer_batch.settings import Settings

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """What became of the message to a recipient: `sent` or `failed`, and then why.

    `recipient` is a mail address, or `chat:` and the name of a chat.
    """

    recipient: str
    state: str
    detail: str = ""


def send_incident(settings: Settings, incident: Incident) -> tuple[Message, list[Told]]:
    """Send the message about an incident to the recipients of the settings.

    Returns the message, and what became of it for each recipient; the log has the errors.
    """
    message = write_message(incident, list_secrets(settings))
    sent_at = datetime.now(UTC)
    told: list[Told] = []

    def attempt(recipient: str, deliver: Callable[[], None]) -> None:
        try:
            deliver()
        except Exception as error:  # whatever it is, the others are told
            if not isinstance(error, FerError):
                log.exception("incident", recipient=recipient)
                error = PermanentError(f"{recipient}: {explain_exception(error)}")
            told.append(Told(recipient, "failed", str(error)))
            log.error("not told", recipient=recipient, error=str(error))
        else:
            told.append(Told(recipient, "sent"))
            log.info("told", recipient=recipient, kind=incident.kind, run=incident.run_id)

    # Chats first: a mail server that does not answer takes its time, which the caller limits.
    for name in split_names(settings.incident_chats):

        def post(name: str = name) -> None:
            chat.post(settings, name.lower(), message.subject, message.text)

        attempt(f"chat:{name}", post)
    with closing(MailServer(settings)) as server:
        for address in split_names(settings.incident_to):

            def mail(address: str = address) -> None:
                _send_mail(server, address, message, incident, sent_at)

            attempt(address, mail)
    return message, told


def list_recipients(settings: Settings) -> list[str]:
    """Everybody who is told: mail addresses, and chats as `chat:NAME`."""
    chats = [f"chat:{name}" for name in split_names(settings.incident_chats)]
    return [*split_names(settings.incident_to), *chats]


def split_names(text: str | None) -> list[str]:
    """The parts of a setting that are separated by commas, each once."""
    parts = (part.strip() for part in (text or "").split(","))
    return list(dict.fromkeys(part for part in parts if part))


def list_secrets(settings: Settings) -> list[str]:
    """The values of all secrets of the settings."""

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
        elif isinstance(value, dict):
            for part in value.values():
                yield from walk(part)
        elif isinstance(value, BaseModel):
            for _, part in value:
                yield from walk(part)

    return list(walk(settings))


def _send_mail(
    server: MailServer, address: str, message: Message, incident: Incident, sent_at: datetime
) -> None:
    try:
        recipient = check_address(address)
    except ValueError as error:
        raise ConfigurationError(f"FER_INCIDENT_TO: {error}", "Correct the address") from None
    key = [incident.kind, incident.dag_id, incident.run_id, recipient, sent_at.isoformat()]
    server.send(
        build_text_message(server.sender, recipient, message.subject, message.text, sent_at, key)
    )
