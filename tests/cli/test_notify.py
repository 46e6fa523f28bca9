"""`fer-batch notify` and `subscriptions`, as a person and the DAG use them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fixtures.command import Command
from tests.fixtures.night import DAY, Night, format_facility
from tests.support.receivers import SmtpServer, smtp_server_running

SUBSCRIPTIONS = """
[subscription.mall]
to = ["anna@example.com"]
facilities = ["mall"]
"""


@pytest.fixture
def smtp_server() -> Iterator[SmtpServer]:
    with smtp_server_running() as server:
        yield server


@pytest.fixture
def notifying(nightly: Command, night: Night, smtp_server: SmtpServer) -> Command:
    """The command with a facility, a subscription and a mail server."""
    night.write_registry(format_facility("mall"), format_facility("pier"))
    night.settings.facilities_file.with_name("subscriptions.toml").write_text(SUBSCRIPTIONS)
    mail = {
        "FER_SMTP_HOST": "127.0.0.1",
        "FER_SMTP_PORT": str(smtp_server.port),
        "FER_SMTP_SECURITY": "none",
        "FER_SMTP_FROM": "fer-batch@example.com",
        "FER_REPORT_LINK": "https://airflow.example.com/satisfaction/",
    }
    return Command(nightly.server, nightly.folder, nightly.env | mail)


def test_a_run_sends_its_digests_once(
    notifying: Command, night: Night, smtp_server: SmtpServer
) -> None:
    night.fill("mall", 30, 30)
    day = f"--capture-day={DAY}"
    assert notifying("run", day, "--json").code in (0, 3)
    [mail] = smtp_server.mails
    assert mail["Subject"].startswith("mall, Fri 20 Nov: ")
    text = str(mail.get_body(["plain"]).get_content())
    assert "https://airflow.example.com/satisfaction/2026-11-20.html" in text
    assert "pier" not in text
    again = notifying("notify", day, "--run-id=night", "--json")
    assert again.code == 0
    [row] = again.json
    assert (row["recipient"], row["state"]) == ("anna@example.com", "sent before")
    smtp_server.refusals["anna@example.com"] = "450 try later"
    later = notifying("notify", day, "--resend")
    assert later.code == 75
    assert "anna@example.com was refused: 450 try later" in later.err
    smtp_server.refusals["anna@example.com"] = "550 no such user"
    assert notifying("notify", day, "--resend").code == 2
    [shown] = notifying("notify", day, "--preview", "--json").json
    assert shown["html"].startswith("<!doctype html>")
    preview = notifying("notify", day, "--preview")
    assert preview.out.startswith("To: anna@example.com\nSubject: mall, Fri 20 Nov: ")
    assert len(smtp_server.mails) == 1


def test_the_file_of_subscriptions_is_written_and_checked(
    notifying: Command, smtp_server: SmtpServer
) -> None:
    checked = notifying("subscriptions", "check", "--json")
    assert checked.code == 0
    [row] = checked.json
    assert (row["to"], row["facilities"], row["problem"]) == ("anna@example.com", "mall", "")
    assert not smtp_server.mails
    unreachable = notifying("subscriptions", "check", "--json", FER_SMTP_PORT="9")
    assert unreachable.code == 3
    assert "127.0.0.1:9" in unreachable.json[0]["problem"]
    assert "exists; nothing was written" in notifying("subscriptions", "init").err
    written = notifying("subscriptions", "init", "example.toml")
    assert written.code == 0
    path = notifying.folder / "example.toml"
    assert f"set FER_SUBSCRIPTIONS_FILE={path}" in written.out
    example = notifying("subscriptions", "check", FER_SUBSCRIPTIONS_FILE=str(path))
    assert example.code == 3
    assert "no group" in example.out


def test_without_subscriptions_nothing_is_sent(notifying: Command, night: Night) -> None:
    night.settings.facilities_file.with_name("subscriptions.toml").unlink()
    notifying("facilities", "sync")
    result = notifying("notify", f"--capture-day={DAY}", "--json")
    assert (result.code, result.json) == (0, [])
    missing = notifying("subscriptions", "check")
    assert missing.code == 2
    assert "fer-batch subscriptions init" in missing.err
