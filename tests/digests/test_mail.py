"""Mails as a real SMTP server on this machine gets them, and what its refusals become."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, date, datetime
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from fer_batch.digests.content import Digest, Entry, Section, clean
from fer_batch.digests.mail import MailServer, build_message
from fer_batch.errors import ConfigurationError, DeliveryError, DeliveryUnavailableError
from fer_batch.settings import Settings
from tests.support.certificates import write_certificates
from tests.support.receivers import SmtpServer, smtp_server_running

DAY = date(2026, 11, 29)
NOW = datetime(2026, 11, 30, 3, tzinfo=UTC)


def build_settings(port: int, **others: Any) -> Settings:
    values: dict[str, Any] = {
        "smtp_host": "127.0.0.1",
        "smtp_port": port,
        "smtp_security": "none",
        "smtp_from": "fer-batch@example.com",
    }
    return Settings(_env_file=None, **values | others)


def build_digest(subject: str = "North: 1 below target") -> Digest:
    lines = [Entry("fell by about 12 points.", "Café Zürich")]
    return Digest(subject, "Happy expressions", [Section("Since last week", lines)], [], "", "now")


def build(recipient: str = "anna@example.com", subject: str = "North", **others: Any) -> Any:
    sender = others.pop("sender", "Reports <fer-batch@example.com>")
    return build_message(build_digest(subject), "north", sender, recipient, DAY, NOW, **others)


def send(settings: Settings, *recipients: str) -> None:
    with closing(MailServer(settings)) as server:
        for recipient in recipients:
            server.send(build(recipient))


def test_a_mail_has_a_text_and_an_html_part(smtp_server: SmtpServer) -> None:
    send(build_settings(smtp_server.port), "anna@example.com")
    [mail] = smtp_server.mails
    assert mail.get_content_type() == "multipart/alternative"
    text, html = (mail.get_body([kind]).get_content() for kind in ("plain", "html"))
    for part in (text, html):
        assert "Café Zürich" in part
    assert "<strong>Café Zürich</strong>: fell by about 12 points." in html
    assert mail["From"] == "Reports <fer-batch@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_mail_is_sent_encrypted_and_with_a_login(tmp_path: Path, security: str) -> None:
    authority, certificate = write_certificates(tmp_path)
    with smtp_server_running(security, certificate, with_login=True) as server:
        ours = build_settings(
            server.port,
            smtp_security=security,
            smtp_ca_bundle=authority,
            smtp_user="fer",
            smtp_password="secret",
        )
        send(ours, "anna@example.com")
        assert server.recipients == [["anna@example.com"]]
        assert server.logins == [("fer", "secret")]
        wrong = ours.model_copy(update={"smtp_user": "nobody"})
        with pytest.raises(DeliveryError, match=r"535.*FER_SMTP_PASSWORD"):
            send(wrong, "anna@example.com")
        foreign = ours.model_copy(update={"smtp_password": SecretStr("sécret")})
        with pytest.raises(ConfigurationError, match=r"FER_SMTP_PASSWORD.*ASCII"):
            send(foreign, "anna@example.com")
        distrusting = ours.model_copy(update={"smtp_ca_bundle": None})
        with pytest.raises(DeliveryError, match=r"not trusted.*FER_SMTP_CA_BUNDLE"):
            send(distrusting, "anna@example.com")


def test_a_server_without_starttls_gets_no_password(smtp_server: SmtpServer) -> None:
    ours = build_settings(smtp_server.port, smtp_security="starttls", smtp_user="fer")
    with pytest.raises(DeliveryError, match=r"STARTTLS.*FER_SMTP_SECURITY"):
        send(ours, "anna@example.com")
    assert not smtp_server.logins
    assert not smtp_server.mails


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("451 greylisted, try later", DeliveryUnavailableError),
        ("550 5.1.1 no such user", DeliveryError),
        ("421 shutting down", DeliveryUnavailableError),
    ],
)
def test_the_answer_of_the_server_decides_whether_a_retry_helps(
    smtp_server: SmtpServer, answer: str, error: type[Exception]
) -> None:
    smtp_server.refusals["gone@example.com"] = answer
    with closing(MailServer(build_settings(smtp_server.port))) as server:
        with pytest.raises(error, match=f"gone@example.com was refused: {answer}"):
            server.send(build("gone@example.com"))
        server.send(build("anna@example.com"))  # the same server takes the next one
    assert smtp_server.recipients == [["anna@example.com"]]


def test_a_server_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import smtplib

    asked = []

    def connect(*arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(smtplib, "SMTP", connect)
    server = MailServer(build_settings(2525))
    for recipient in ("anna@example.com", "ben@example.com"):
        with pytest.raises(DeliveryUnavailableError, match=r"127.0.0.1:2525.*refused"):
            server.send(build(recipient))
    assert len(asked) == 1


def test_a_server_that_stops_answering_is_not_waited_for_again(
    smtp_server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import smtplib

    asked = []

    def hang(*_: Any, to_addrs: list[str], **__: Any) -> None:
        asked.append(to_addrs)
        raise TimeoutError("timed out")

    monkeypatch.setattr(smtplib.SMTP, "send_message", hang)
    with closing(MailServer(build_settings(smtp_server.port))) as server:
        with pytest.raises(DeliveryUnavailableError, match=r"anna@example.com: timed out"):
            server.send(build("anna@example.com"))
        with pytest.raises(DeliveryUnavailableError, match=r"127.0.0.1 stopped answering"):
            server.send(build("ben@example.com"))
    assert asked == [["anna@example.com"]]


def test_a_connection_that_the_server_ended_is_opened_again(smtp_server: SmtpServer) -> None:
    with closing(MailServer(build_settings(smtp_server.port))) as server:
        server.send(build("anna@example.com"))
        client = server._client
        assert client is not None
        assert client.sock is not None
        client.sock.shutdown(2)
        server.send(build("ben@example.com"))
    assert smtp_server.recipients == [["anna@example.com"], ["ben@example.com"]]


def test_without_a_server_or_a_sender_the_setting_is_named() -> None:
    for changes, name in (({"smtp_host": None}, "HOST"), ({"smtp_from": None}, "FROM")):
        with pytest.raises(ConfigurationError, match=f"FER_SMTP_{name} is not set"):
            MailServer(build_settings(25, **changes)).sender  # noqa: B018
    for sender in ("fer-batch", "", "a@b\r\nBcc: c@d", "<>", "x@"):
        with pytest.raises(ConfigurationError, match="FER_SMTP_FROM"):
            build(sender=sender)


def test_the_id_of_a_mail_follows_from_the_digest() -> None:
    assert build()["Message-ID"] == build()["Message-ID"]
    assert len({build(r)["Message-ID"] for r in ("a@x.org", "b@x.org", "B@x.org")}) == 2
    assert build()["Message-ID"] != build(is_resent=True)["Message-ID"]


HOSTILE = st.text(st.sampled_from("aé \r\n\t\0\x0b\x0c\x1c\x85\u2028\u2029\u202e:ß日\ud800"))


@settings(max_examples=40)
@given(HOSTILE)
@example("ß :, 日é , :, :ßé日é,aa:éß: é é日 é日é,aß é:ß")
def test_no_text_adds_a_header_to_a_mail(text: str) -> None:
    subject = clean(f"North{text}\r\nBcc: eve@example.com\r\n\r\nbody")
    sent = message_from_bytes(bytes(build(subject=subject)), policy=policy.default)
    assert [*sent.keys()] == [
        *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"),
        *("MIME-Version", "Content-Type"),
    ]
    assert sent["Subject"].split() == subject.split()
    assert len(subject.splitlines()) == 1
    assert "\u202e" not in subject
