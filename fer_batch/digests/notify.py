"""Sends the digests of a capture day to everybody who gets one, each once.

The nightly run of each time zone calls it when it has written its report. A digest is about all
facilities of its subscription, so it is sent by the run of the last time zone. A recipient who
cannot be reached does not affect the others; the error at the end names all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from fer_batch.database import connections
from fer_batch.digests import chat, content, deliveries, rendering
from fer_batch.digests.content import Digest
from fer_batch.digests.deliveries import Nights
from fer_batch.digests.mail import MailServer, build_message
from fer_batch.digests.subscriptions import (
    HINT,
    Subscription,
    Subscriptions,
    load_subscriptions,
    select_facilities,
)
from fer_batch.errors import (
    ConfigurationError,
    FerError,
    PermanentError,
    RetryableError,
    explain_exception,
)
from fer_batch.log import get_logger
from fer_batch.reporting import loading, pages, store
from fer_batch.reporting.loading import ReportRows
from fer_batch.reporting.pages import ReportPage
from fer_batch.settings import Settings

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of the digest of a recipient: `sent`, `sent before`, `not due` or `failed`.

    `recipient` is a mail address, or `chat:` and the name of a chat.
    """

    subscription: str
    recipient: str
    capture_day: date | None
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """A digest that would be sent to the recipients of a subscription."""

    subscription: str
    recipients: Sequence[str]
    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Night:
    """The nightly run that sends digests. `resend`: also those that were sent before.

    `facility_ids` are those that the run has processed. `awaited_ids` are all that have a run each
    night: those with a valid entry in the registry.
    """

    capture_day: date
    run_id: str
    now: datetime
    facility_ids: Collection[str]
    awaited_ids: Collection[str]
    resend: bool = False


def send_digests(
    engine: sa.Engine, settings: Settings, night: Night, names: Collection[str] = ()
) -> tuple[list[Sent], FerError | None]:
    """Record that the nightly run of the facilities has finished; send the digests that are due.

    Where the capture day is not over, nothing is recorded, and its digest is not due.
    `names` limits it to these subscriptions. Returns what became of each digest, and the error of
    those that failed: a RetryableError if a retry may deliver one of them, else a PermanentError;
    None if none failed. Raises ConfigurationError if the file of subscriptions cannot be used, and
    DatabaseError.
    """
    with connections.transaction(engine) as connection:
        deliveries.record_finished(
            connection, night.facility_ids, night.capture_day, night.run_id, night.now
        )
    subscriptions = _select(load_subscriptions(settings), names)
    failures: list[FerError] = [
        ConfigurationError(f"subscription {name}: {'; '.join(problems)}", HINT)
        for name, problems in subscriptions.problems.items()
    ]
    results: list[Sent] = []
    if subscriptions.valid:
        with closing(MailServer(settings)) as server:
            sender = _Sender(engine, settings, server, night)
            for subscription in subscriptions.valid:
                results += sender.send(subscription, failures)
    for failure in failures:
        log.error("digest not sent", error=str(failure))
    return results, _combine(failures)


def preview_digests(
    engine: sa.Engine, settings: Settings, capture_day: date, names: Collection[str] = ()
) -> list[Preview]:
    """The digests of a capture day as they would be sent by now; nothing is sent or recorded.

    Raises ConfigurationError for an invalid subscription.
    """
    subscriptions = _select(load_subscriptions(settings), names)
    for name, problems in subscriptions.problems.items():
        raise ConfigurationError(f"subscription {name}: {'; '.join(problems)}", HINT)
    night = Night(capture_day, "preview", datetime.now(UTC), (), ())
    previews = []
    with closing(MailServer(settings)) as server:
        sender = _Sender(engine, settings, server, night)
        for subscription in subscriptions.valid:
            ids, problems = select_facilities(subscription, sender.groups)
            if problems:
                raise ConfigurationError(
                    f"subscription {subscription.name}: {'; '.join(problems)}", HINT
                )
            digest = sender.build(subscription, ids, capture_day, None)
            text = rendering.render_text(digest, subscription.name)
            html = rendering.render_html(digest, subscription.name)
            recipients = list_recipients(subscription)
            previews.append(Preview(subscription.name, recipients, digest.subject, text, html))
    return previews


def list_recipients(subscription: Subscription) -> list[str]:
    """The mail addresses of a subscription, and its chat as `chat:NAME`."""
    chats = [] if subscription.chat is None else [f"chat:{subscription.chat}"]
    return [*subscription.list_addresses(), *chats]


class _Sender:
    """Builds and sends the digests of a night; reads the rows of a capture day once."""

    def __init__(
        self, engine: sa.Engine, settings: Settings, server: MailServer, night: Night
    ) -> None:
        self._engine, self._settings = engine, settings
        self._server, self._night = server, night
        self._loaded: dict[date, ReportRows] = {}
        self._built: dict[date, ReportPage] = {}
        facilities = [each.facility for each in self._load_rows(night.capture_day).facilities]
        self.groups = {each["facility_id"]: each["group_name"] for each in facilities}
        self._zones = {each["facility_id"]: each["time_zone"] for each in facilities}
        with connections.transaction(engine) as connection:
            self._nights = deliveries.load_nights(connection, self.groups, night.capture_day)

    def send(self, subscription: Subscription, failures: list[FerError]) -> list[Sent]:
        """Send the digest of a subscription to its recipients; their errors go to `failures`."""
        ids, problems = select_facilities(subscription, self.groups)
        if problems:
            failures.append(
                ConfigurationError(f"subscription {subscription.name}: {'; '.join(problems)}", HINT)
            )
        recipients = list_recipients(subscription)
        if not ids:
            return []
        zones = {i: self._zones[i] for i in ids if i in self._night.awaited_ids}
        capture_day, now = self._night.capture_day, self._night.now
        day: date | None = capture_day
        if zones:
            day = deliveries.choose_day(capture_day, self._nights, zones, now)
        elif any(now < deliveries.find_end(capture_day, self._zones[i]) for i in ids):
            day = None
        if day is None:
            detail = "waits for the end of the day and the runs of its facilities"
            return [Sent(subscription.name, each, None, "not due", detail) for each in recipients]

        @cache
        def build(last_sent: date | None) -> Digest:
            return self.build(subscription, ids, day, last_sent)

        results = []
        for recipient in recipients:
            try:
                results.append(self._send_to(subscription, recipient, day, build))
            except Exception as error:  # whatever it is, the others get their digests
                if not isinstance(error, FerError):
                    log.exception("digest", subscription=subscription.name, recipient=recipient)
                    error = PermanentError(f"{recipient}: {explain_exception(error)}")
                failures.append(error)
                results.append(Sent(subscription.name, recipient, day, "failed", str(error)))
        return results

    def build(
        self,
        subscription: Subscription,
        ids: Collection[str],
        day: date,
        last_sent: date | None,
    ) -> Digest:
        """The digest of a capture day about these facilities only."""
        rows = self._load_rows(day)
        report, own = content.select(
            self._build_report(day), rows, ids, is_all=subscription.all_facilities
        )
        nights = {facility_id: self._nights.get(facility_id, Nights()) for facility_id in ids}
        missed = deliveries.find_missed(nights, day, last_sent)
        base = self._settings.report_link
        link = "" if base is None else f"{base.rstrip('/')}/{store.make_day_name(day)}"
        return content.build_digest(report, own, subscription.every, missed, link)

    def _send_to(
        self,
        subscription: Subscription,
        recipient: str,
        day: date,
        build: Callable[[date | None], Digest],
    ) -> Sent:
        resend, state = self._night.resend, "sent"

        def deliver(last_sent: date | None) -> bool:
            nonlocal state
            if not resend and not subscription.is_due(day, last_sent):
                is_old = last_sent is not None and subscription.find_due_day(day) <= last_sent
                state = "sent before" if is_old else "not due"
                return False
            before = last_sent if last_sent is not None and last_sent < day else None
            self._deliver(subscription, recipient, day, build(before))
            return True

        deliveries.send_once(
            self._engine, subscription.name, recipient, day, self._night.run_id, deliver
        )
        log.info(
            "digest",
            subscription=subscription.name,
            recipient=recipient,
            day=day.isoformat(),
            state=state,
        )
        return Sent(subscription.name, recipient, day, state)

    def _deliver(
        self, subscription: Subscription, recipient: str, day: date, digest: Digest
    ) -> None:
        kind, _, name = recipient.partition(":")
        if kind == "chat" and "@" not in recipient:
            chat.send(self._settings, name, digest)
            return
        message = build_message(
            digest,
            subscription.name,
            self._server.sender,
            recipient,
            day,
            datetime.now(UTC),
            is_resent=self._night.resend,
        )
        self._server.send(message)

    def _load_rows(self, day: date) -> ReportRows:
        if day not in self._loaded:
            with connections.transaction(self._engine) as connection:
                self._loaded[day] = loading.load_rows(connection, day)
        return self._loaded[day]

    def _build_report(self, day: date) -> ReportPage:
        if day not in self._built:
            self._built[day] = pages.build_report(self._load_rows(day))
        return self._built[day]


def _select(subscriptions: Subscriptions, names: Collection[str]) -> Subscriptions:
    """The subscriptions of these names. Raises ConfigurationError for an unknown one."""
    if not names:
        return subscriptions
    known = {each.name: each for each in subscriptions.valid}
    for name in names:
        if name not in known and name not in subscriptions.problems:
            everyone = ", ".join([*known, *subscriptions.problems]) or "none"
            raise ConfigurationError(
                f"there is no subscription {name!r}", f"The file has: {everyone}"
            )
    problems: Mapping[str, Any] = subscriptions.problems
    return Subscriptions(
        subscriptions.path,
        [known[name] for name in known if name in names],
        {name: problems[name] for name in problems if name in names},
    )


def _combine(failures: Sequence[FerError]) -> FerError | None:
    """One error of all: retryable if one of them is, so that a retry delivers that one."""
    if len(failures) < 2:
        return failures[0] if failures else None
    kind = (
        RetryableError if any(isinstance(e, RetryableError) for e in failures) else PermanentError
    )
    texts = list(dict.fromkeys(map(str, failures)))
    return kind(f"{len(failures)} digests were not sent: {' | '.join(texts)}")
