"""Sending digests: each once, to whom it belongs, when all its facilities have finished."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fer_batch.digests import deliveries, notify
from fer_batch.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    DeliveryUnavailableError,
    FerError,
    PermanentError,
    RetryableError,
)
from fer_batch.settings import Settings
from tests.support.receivers import ChatServer, SmtpServer

DAY = date(2026, 3, 1)  # a Sunday
CALLED = [[10, 1, 20]] * 12
ANNA, BEN = "anna@example.com", "ben@example.com"


@dataclass
class Sender:
    """Sends the digests of nights, and keeps the texts."""

    calendar: Any
    settings: Settings
    smtp: SmtpServer
    awaited: list[str] = field(default_factory=list)

    def subscribe(self, text: str) -> None:
        path = self.settings.subscriptions_file
        assert path is not None
        path.write_text(text, encoding="utf-8")

    def add(self, facility_id: str, **others: Any) -> None:
        self.calendar.tables.add(facility_id, **others)
        self.awaited.append(facility_id)

    def run(
        self, day: date = DAY, *ids: str, now: datetime | None = None, **others: Any
    ) -> tuple[list[str], FerError | None]:
        """The states of the digests after the nightly run of these facilities, default all."""
        sent, failure = self.send(day, *ids, now=now, **others)
        return [each.state for each in sent], failure

    def send(
        self, day: date = DAY, *ids: str, now: datetime | None = None, **others: Any
    ) -> tuple[Sequence[notify.Sent], FerError | None]:
        settings = others.pop("settings", self.settings)
        night = notify.Night(
            day,
            others.pop("run_id", f"run of {day}"),
            now or datetime(day.year, day.month, day.day, 12, tzinfo=UTC) + timedelta(days=1),
            ids or self.awaited,
            self.awaited,
            others.pop("resend", False),
        )
        return notify.send_digests(self.calendar.tables.engine, settings, night, **others)


@pytest.fixture
def sender(calendar: Any, smtp_server: SmtpServer, tmp_path: Path) -> Sender:
    settings = Settings(
        _env_file=None,
        subscriptions_file=tmp_path / "subscriptions.toml",
        smtp_host="127.0.0.1",
        smtp_port=smtp_server.port,
        smtp_security="none",
        smtp_from="fer-batch@example.com",
    )
    sender = Sender(calendar, settings, smtp_server)
    sender.add("north-mall", name="North Mall", group="North", target_rate=0.3)
    sender.add("pier", name="Südpier", group="South", time_zone="America/Chicago")
    for name in sender.awaited:
        calendar.write_day(CALLED, DAY, name)
    sender.subscribe(
        f'[subscription.north]\nto = ["{ANNA}"]\ngroups = ["North"]\n'
        f'[subscription.south]\nto = ["{BEN}"]\ngroups = ["South"]\n'
    )
    return sender


def get_texts(server: SmtpServer, address: str) -> list[str]:
    texts = (str(mail.get_body(["plain"]).get_content()) for mail in server.read(address))
    return [text.replace("\r\n", "\n") for text in texts]


def test_each_recipient_gets_the_digest_of_its_group_once(sender: Sender) -> None:
    assert sender.run() == (["sent", "sent"], None)
    assert sender.run(run_id="cleared") == (["sent before", "sent before"], None)
    [north], [south] = (get_texts(sender.smtp, address) for address in (ANNA, BEN))
    assert "North Mall" in north
    assert "pier" not in north
    assert "Südpier" in south
    assert "North" not in south
    assert sender.run(resend=True) == (["sent", "sent"], None)
    first, second = sender.smtp.read(ANNA)
    assert first["Message-ID"] != second["Message-ID"]
    assert [str(mail["Subject"]) for mail in sender.smtp.read(BEN)] == [
        "Südpier, Sun 1 Mar: no target"
    ] * 2


def test_two_runs_that_finish_at_once_send_one_digest(sender: Sender) -> None:
    with ThreadPoolExecutor(4) as threads:
        ended = [threads.submit(sender.run, run_id=f"run {n}") for n in range(4)]
    states = sorted(state for each in ended for state in each.result()[0])
    assert states == ["sent"] * 2 + ["sent before"] * 6
    assert len(sender.smtp.mails) == 2


def test_an_older_day_that_is_run_later_sends_nothing(sender: Sender) -> None:
    sender.run()
    assert sender.run(DAY - timedelta(days=1)) == (["sent before", "sent before"], None)


def test_a_digest_waits_for_the_last_time_zone(sender: Sender) -> None:
    sender.subscribe(f'[subscription.all]\nto = ["{ANNA}"]\nall_facilities = true\n')
    for days in (2, 1):
        sender.run(DAY - timedelta(days=days))
    berlin = datetime(2026, 3, 2, 3, tzinfo=UTC)
    waiting = sender.run(DAY, "north-mall", now=berlin)
    assert waiting == (["sent before"], None)  # that of the day before
    assert sender.run(DAY, "pier", now=berlin + timedelta(hours=7)) == (["sent"], None)
    assert sender.smtp.read(ANNA)[-1]["Subject"].startswith("North, South, Sun 1 Mar: ")


def test_a_run_of_a_day_that_is_not_over_sends_nothing_and_is_not_its_night(
    sender: Sender,
) -> None:
    sender.run(DAY - timedelta(days=1))
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert sender.run(now=noon) == (["sent before"] * 2, None)  # those of the day before
    soon = DAY + timedelta(days=30)
    assert sender.run(soon, now=noon) == (["not due"] * 2, None)
    sender.awaited, awaited = [], sender.awaited  # their entries in the registry are invalid
    assert sender.run(soon, *awaited, now=noon) == (["not due"] * 2, None)
    sender.awaited = awaited
    assert len(sender.smtp.mails) == 2
    night = datetime(2026, 3, 2, 10, tzinfo=UTC)
    assert sender.run(DAY + timedelta(days=1), now=night) == (["not due"] * 2, None)
    assert sender.run(now=night) == (["sent"] * 2, None)
    rows = sender.calendar.tables.query("SELECT DISTINCT capture_day FROM fer.finished_night")
    assert sorted(day for (day,) in rows) == [DAY - timedelta(days=1), DAY]


def test_a_night_that_did_not_happen_is_said_in_the_next_mail(sender: Sender) -> None:
    sender.run(DAY - timedelta(days=3))
    sender.run(DAY, "north-mall")
    *_, text = get_texts(sender.smtp, ANNA)
    assert (
        "- The nightly run of Fri 27 to Sat 28 Feb did not finish. It has not been processed.\n"
        in text
    )
    sender.run(DAY + timedelta(days=1))
    *_, text = get_texts(sender.smtp, ANNA)
    assert "did not finish" not in text
    assert "North Mall: Not processed yet; its figures are of Sun 1 Mar." in text
    *_, text = get_texts(sender.smtp, BEN)  # whose last digest is the one before
    assert "The nightly run of Fri 27 to Sat 28 Feb did not finish. It has not been" in text
    assert "The nightly run of Sun 1 Mar did not finish. A later run has processed it." in text


def test_a_refusal_does_not_stop_the_others_and_a_retry_sends_only_what_is_left(
    sender: Sender,
) -> None:
    sender.subscribe(
        f'[subscription.north]\nto = ["gone@x.org", "{ANNA}"]\ngroups = ["North"]\n'
        f'[subscription.south]\nto = ["{BEN}"]\ngroups = ["South"]\n'
    )
    sender.smtp.refusals["gone@x.org"] = "550 no such user"
    states, failure = sender.run()
    assert states == ["failed", "sent", "sent"]
    assert isinstance(failure, PermanentError)
    assert "gone@x.org was refused: 550 no such user" in str(failure)
    sender.smtp.refusals["gone@x.org"] = "451 greylisted"
    states, failure = sender.run()
    assert states == ["failed", "sent before", "sent before"]
    assert isinstance(failure, RetryableError)
    sender.smtp.refusals.clear()
    assert sender.run() == (["sent", "sent before", "sent before"], None)
    assert len(sender.smtp.mails) == 3


def test_one_transient_failure_makes_the_run_retryable(sender: Sender) -> None:
    sender.smtp.refusals |= {ANNA: "550 no such user", BEN: "451 greylisted"}
    _, failure = sender.run()
    assert isinstance(failure, RetryableError)
    assert f"{ANNA} was refused: 550" in str(failure)
    assert f"{BEN} was refused: 451" in str(failure)


def test_an_invalid_subscription_and_an_unknown_group_are_named_and_cost_no_other(
    sender: Sender,
) -> None:
    sender.subscribe(
        f'[subscription.north]\nto = ["{ANNA}"]\ngroups = ["North"]\n'
        f'[subscription.typo]\nto = ["{BEN}"]\ngroups = ["Nort"]\n'
        f'[subscription.bad]\nto = ["{BEN}"]\n'
    )
    states, failure = sender.run()
    assert states == ["sent"]
    assert isinstance(failure, PermanentError)
    assert "subscription typo: the registry has no group 'Nort' (did you mean North?)" in str(
        failure
    )
    assert "subscription bad: has no facility" in str(failure)


def test_mail_and_chat_are_independent(sender: Sender, chat_server: ChatServer) -> None:
    sender.subscribe(f'[subscription.north]\nto = ["{ANNA}"]\nchat = "north"\ngroups = ["North"]\n')
    urls: Any = {"chat_urls": {"north": chat_server.url}}
    settings = Settings(_env_file=None, **sender.settings.model_dump(exclude={"chat_urls"}) | urls)
    chat_server.status = 503
    states, failure = sender.run(settings=settings)
    assert states == ["sent", "failed"]
    assert isinstance(failure, DeliveryUnavailableError)
    chat_server.status = 200
    assert sender.run(settings=settings) == (["sent before", "sent"], None)
    assert chat_server.posts[-1][1]["title"] == sender.smtp.mails[0]["Subject"]
    assert "Südpier" not in str(chat_server.posts)


def test_a_weekly_digest_is_sent_on_its_weekday(sender: Sender) -> None:
    sender.subscribe(f'[subscription.north]\nto = ["{ANNA}"]\ngroups = ["North"]\nevery = "week"\n')
    days = [DAY + timedelta(days=n) for n in range(-3, 8)]
    states = [sender.run(day)[0] for day in days]
    sent = [day for day, [state] in zip(days, states, strict=True) if state == "sent"]
    assert sent == [DAY, DAY + timedelta(days=7)]  # of Sundays, on Monday mornings


def test_without_subscriptions_nights_are_recorded_all_the_same(sender: Sender) -> None:
    path = sender.settings.subscriptions_file
    assert path is not None
    path.unlink()
    without = sender.settings.model_copy(
        update={"subscriptions_file": None, "facilities_file": path.with_name("facilities.toml")}
    )
    assert sender.run(settings=without) == ([], None)
    [row] = sender.calendar.tables.query("SELECT count(*) FROM fer.finished_night")
    assert row[0] == 2


def test_a_mail_that_was_not_recorded_has_the_same_id_when_it_is_sent_again(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Any = deliveries.send_once

    def lose_connection(*arguments: Any) -> bool:
        others: Any = arguments[:-1]
        deliver = arguments[-1]

        def deliver_and_fail(last_sent: date | None) -> bool:
            deliver(last_sent)
            raise DatabaseUnavailableError("the connection was lost")

        return original(*others, deliver_and_fail)

    monkeypatch.setattr(deliveries, "send_once", lose_connection)
    assert sender.run()[0] == ["failed", "failed"]
    monkeypatch.undo()
    assert sender.run()[0] == ["sent", "sent"]
    first, second = sender.smtp.read(ANNA)
    assert first["Message-ID"] == second["Message-ID"]


def test_a_preview_sends_and_records_nothing(sender: Sender) -> None:
    engine = sender.calendar.tables.engine
    [preview] = notify.preview_digests(engine, sender.settings, DAY, ["south"])
    assert preview.recipients == [BEN]
    assert "Südpier" in preview.text
    with pytest.raises(ConfigurationError, match=r"no subscription 'west'.*north, south"):
        notify.preview_digests(engine, sender.settings, DAY, ["west"])
    assert not sender.smtp.mails
    tables = ("finished_night", "digest_delivery")
    for table in tables:
        assert not sender.calendar.tables.query(f"SELECT * FROM fer.{table}")  # noqa: S608


def test_no_address_is_stored(sender: Sender) -> None:
    sender.run()
    rows = sender.calendar.tables.query("SELECT * FROM fer.digest_delivery")
    assert len(rows) == 2
    assert "anna" not in str(rows)
