"""Messages to chats, by their webhooks; the library Apprise knows how each service wants them.

The URL of a webhook is a secret: no error and no log line contains it.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from fer_batch.digests import rendering
from fer_batch.digests.content import Digest
from fer_batch.errors import (
    ConfigurationError,
    DeliveryError,
    DeliveryUnavailableError,
    FerError,
)
from fer_batch.settings import Settings

_STATUS = re.compile(r"\berror=([0-9]{3})\b")
_TRY_LATER = (408, 425, 429)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


def send(settings: Settings, name: str, digest: Digest) -> None:
    """Post a digest to a chat. Raises what `post` raises."""
    post(settings, name, digest.subject, rendering.render_chat(digest))


def post(settings: Settings, name: str, title: str, text: str) -> None:
    """Post a message to a chat.

    Raises ConfigurationError for a chat without a usable webhook, DeliveryError if it refuses, and
    DeliveryUnavailableError if it does not answer or is busy.
    """
    apprise = _import_apprise()
    service = find_service(settings, name)
    notifier = apprise.Apprise()
    notifier.add(service)
    result = notifier.notify(title=title, body=text, body_format=apprise.NotifyFormat.TEXT)
    if not result:
        raise _make_error(name, _read_warnings(result))


def find_service(settings: Settings, name: str) -> Any:
    """The service of a chat's webhook; a web address of an unknown one gets a JSON document.

    Raises ConfigurationError if the chat is not set, or its webhook is not one.
    """
    secret = settings.chat_urls.get(name)
    hint = f"Set FER_CHAT_URLS__{name.upper()}, or the Airflow Connection fer_chat_{name}"
    if secret is None:
        raise ConfigurationError(f"the webhook of the chat {name!r} is not set", hint)
    url = secret.get_secret_value().strip()
    apprise = _import_apprise()
    scheme, separator, rest = url.partition("://")
    asset = apprise.AppriseAsset(app_id="fer-batch", app_desc="fer-batch", image_url_mask="")

    def instantiate(url: str) -> Any:
        return apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)

    service = instantiate(url)
    if service is None and separator and scheme.lower() in ("http", "https"):
        service = instantiate(f"{'jsons' if scheme.lower() == 'https' else 'json'}://{rest}")
    if service is None:
        raise ConfigurationError(
            f"the webhook of the chat {name!r} is no URL of a known service",
            f"{hint}, to the service's webhook or a URL of Apprise",
        )
    return service


def _import_apprise() -> Any:
    try:
        import apprise
    except ImportError:
        raise ConfigurationError(
            "messages to chats need Apprise, which is not installed",
            "Install fer-batch with the extra `notify`; see docs/deploy.md",
        ) from None
    logger = logging.getLogger("apprise")  # its texts are in the errors, without URLs
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return apprise


def _read_warnings(result: Any) -> str:
    """What the service answered, without URLs."""
    texts = [
        str(entry.message)
        for each in result
        for attempt in each
        for entry in attempt.logs
        if entry.level in ("WARNING", "ERROR", "CRITICAL")
    ]
    return _URL.sub("…", " ".join(" ".join(texts).split()))[:300]


def _make_error(name: str, answer: str) -> FerError:
    """The error for a service's answer; without an HTTP status it has not answered."""
    status = _STATUS.search(answer)
    described = f"the message to the chat {name!r} was not delivered: {answer or 'no answer'}"
    code = 0 if status is None else int(status[1])
    if code == 0 or code >= 500 or code in _TRY_LATER:
        return DeliveryUnavailableError(described, "It is tried again")
    return DeliveryError(
        described, f"Correct FER_CHAT_URLS__{name.upper()}, or create a new webhook"
    )
