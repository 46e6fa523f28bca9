"""Digests by mail: messages of a text and an HTML part, and the SMTP server that takes them.

One connection sends the mails of a run, each to one recipient. Every refusal is a DeliveryError or
a DeliveryUnavailableError with the server's answer: 4xx is transient, 5xx is permanent (RFC 5321).
"""

from __future__ import annotations

import hashlib
import smtplib
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr

from fer_batch.digests import rendering
from fer_batch.digests.content import Digest, clean
from fer_batch.errors import (
    ConfigurationError,
    DeliveryError,
    DeliveryUnavailableError,
    FerError,
)
from fer_batch.settings import Settings

TIMEOUT_S = 30.0
# The longest line of RFC 5322: where the standard library folds encoded words, it loses spaces.
_POLICY = SMTP.clone(max_line_length=998)
_PORTS = {"starttls": 587, "tls": 465, "none": 25}


def build_message(
    digest: Digest,
    subscription: str,
    sender: str,
    recipient: str,
    capture_day: date,
    sent_at: datetime,
    *,
    is_resent: bool = False,
) -> EmailMessage:
    """The mail of a digest to one recipient, with a text and an HTML part.

    Its Message-ID follows from subscription, recipient and capture day, so a mail that a server got
    twice, because the connection broke before its answer, can be recognized. A digest that is sent
    again on purpose (`is_resent`) has another one. Raises ConfigurationError for an invalid sender.
    """
    key = [subscription, recipient.casefold(), capture_day.isoformat()]
    if is_resent:
        key.append(sent_at.isoformat())
    text = rendering.render_text(digest, subscription)
    message = build_text_message(sender, recipient, digest.subject, text, sent_at, key)
    message.add_alternative(
        rendering.render_html(digest, subscription), subtype="html", cte="quoted-printable"
    )
    return message


def build_text_message(
    sender: str,
    recipient: str,
    subject: str,
    text: str,
    sent_at: datetime,
    key: Sequence[str],
) -> EmailMessage:
    """A mail of a text. `subject` is one line without control characters.

    Its Message-ID follows from `key`. Raises ConfigurationError for an invalid sender.
    """
    name, address = parseaddr(sender)
    try:
        # A display name is a header value too; Address refuses line breaks.
        origin = Address(display_name=name, addr_spec=address)
    except (ValueError, IndexError):
        origin = Address()
    if not origin.username or not origin.domain or clean(sender) != sender.strip():
        raise ConfigurationError(
            f"FER_SMTP_FROM {sender!r} is not an address",
            "Set it to an address such as fer-batch@example.com or Reports <fer-batch@example.com>",
        )
    digits = hashlib.sha256("\n".join(key).encode()).hexdigest()[:32]
    message = EmailMessage(policy=_POLICY)
    message["From"] = origin
    message["To"] = recipient
    message["Subject"] = subject
    message["Date"] = format_datetime(sent_at)
    message["Message-ID"] = f"<{digits}@{origin.domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office replies
    # Quoted-printable: lines of any length, and servers without 8BITMIME.
    message.set_content(text, cte="quoted-printable")
    return message


class _NoAnswerError(DeliveryUnavailableError):
    """The server did not answer, or ended the connection."""


class MailServer:
    """The SMTP server of the settings. It connects with the first mail; `close` ends that.

    After a failed connection, a refused login or a timeout, the remaining mails fail at once, so
    that each does not wait for the same timeout.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: smtplib.SMTP | None = None
        self._failure: FerError | None = None

    @property
    def sender(self) -> str:
        """The address that mails come from. Raises ConfigurationError if it is not set."""
        if self._settings.smtp_host is None or self._settings.smtp_from is None:
            missing = "FER_SMTP_HOST" if self._settings.smtp_host is None else "FER_SMTP_FROM"
            raise ConfigurationError(
                f"{missing} is not set, so no mail can be sent",
                "Set FER_SMTP_HOST and FER_SMTP_FROM, or the Airflow Connection fer_smtp",
            )
        return self._settings.smtp_from

    def send(self, message: EmailMessage) -> None:
        """Send a mail. Raises ConfigurationError, DeliveryError and DeliveryUnavailableError."""
        recipient = str(message["To"])
        for is_last in (False, True):
            is_reused = self._client is not None
            client = self._connect()
            try:
                with _explain(f"the mail to {recipient}"):
                    client.send_message(message, to_addrs=[recipient])
            except _NoAnswerError as error:
                self.close()
                # A server may end a connection that it has served; then a new one is tried.
                if is_last or not is_reused:
                    self._failure = DeliveryUnavailableError(
                        f"the mail server {self._settings.smtp_host} stopped answering",
                        "It is tried again",
                    )
                    raise error from None
            except DeliveryUnavailableError:
                self.close()
                raise
            except DeliveryError:
                with suppress(OSError, smtplib.SMTPException):
                    client.rset()
                raise
            else:
                return

    def check(self) -> str:
        """Connect and log in; returns the server's name. Raises what `send` raises."""
        self._connect()
        self.close()
        return f"{self._settings.smtp_host}, from {self.sender}"

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._client is not None:
            with suppress(OSError, smtplib.SMTPException):
                self._client.quit()
            self._client.close()
        self._client = None

    def _connect(self) -> smtplib.SMTP:
        if self._failure is not None:
            raise self._failure
        if self._client is None:
            try:
                self._client = self._log_in()
            except FerError as error:
                self._failure = error
                raise
        return self._client

    def _log_in(self) -> smtplib.SMTP:
        settings, _ = self._settings, self.sender
        host, security = settings.smtp_host or "", settings.smtp_security
        port = settings.smtp_port or _PORTS[security]
        with _explain(f"the mail server {host}:{port}"):
            context = _build_context(settings)
            client: smtplib.SMTP
            if security == "tls":
                client = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_S, context=context)
            else:
                client = smtplib.SMTP(host, port, timeout=TIMEOUT_S)
            try:
                if security == "starttls":
                    client.starttls(context=context)
                if settings.smtp_user is not None:
                    password = settings.smtp_password
                    client.login(
                        settings.smtp_user, "" if password is None else password.get_secret_value()
                    )
            except BaseException:
                client.close()
                raise
            return client


def _build_context(settings: Settings) -> ssl.SSLContext:
    file = settings.smtp_ca_bundle
    try:
        return ssl.create_default_context(cafile=None if file is None else str(file))
    except (OSError, ssl.SSLError):
        raise ConfigurationError(
            f"FER_SMTP_CA_BUNDLE {file} is not a readable PEM file", "Correct the path"
        ) from None


@contextmanager
def _explain(what: str) -> Iterator[None]:
    """Turn the errors of smtplib into errors of fer-batch that name the server's answer."""
    try:
        yield
    except smtplib.SMTPRecipientsRefused as error:
        raise _make_error(what, *next(iter(error.recipients.values()))) from None
    except smtplib.SMTPResponseException as error:
        raise _make_error(what, error.smtp_code, error.smtp_error) from None
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"{what}: FER_SMTP_USER and FER_SMTP_PASSWORD can only have characters of ASCII",
            "Give the mail account another password",
        ) from None
    except smtplib.SMTPNotSupportedError as error:
        raise DeliveryError(
            f"{what}: {error}",
            "Set FER_SMTP_SECURITY to tls or none if the server has no STARTTLS, remove "
            "FER_SMTP_USER if it has no login, or use an address in ASCII",
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise DeliveryError(
            f"{what}: its certificate is not trusted: {error.verify_message}",
            "Set FER_SMTP_CA_BUNDLE to the authority that signed it, and FER_SMTP_HOST to the name "
            "in it",
        ) from None
    except ssl.SSLError as error:
        raise DeliveryError(
            f"{what}: TLS failed: {error.reason or error}",
            "Port 465 needs FER_SMTP_SECURITY=tls, port 587 starttls",
        ) from None
    except (smtplib.SMTPException, OSError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise _NoAnswerError(
            f"{what}: {text}", "It is tried again; if it persists, check FER_SMTP_HOST and _PORT"
        ) from None


def _make_error(what: str, code: int, answer: bytes | str) -> FerError:
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)
    described = f"{what} was refused: {code} {' '.join(text.split())}".strip()
    if 400 <= code < 500 or code == -1:  # -1: no answer that smtplib could read
        return DeliveryUnavailableError(described, "The server asks to try again later")
    if code in (530, 534, 535, 538):
        return DeliveryError(described, "Correct FER_SMTP_USER and FER_SMTP_PASSWORD")
    return DeliveryError(described, "Correct the address, or ask its server")
