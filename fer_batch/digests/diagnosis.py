"""Tests everything that digests need, without sending any: `fer-batch subscriptions check`."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from fer_batch.digests import chat
from fer_batch.digests.mail import MailServer
from fer_batch.digests.subscriptions import (
    KIND,
    Subscription,
    load_subscriptions,
    select_facilities,
)
from fer_batch.errors import ConfigurationError, FerError
from fer_batch.facilities.loading import load_registry
from fer_batch.settings import Settings


def check_subscriptions(settings: Settings) -> list[dict[str, Any]]:
    """A row for each subscription: who gets which facilities when, and what is wrong with it.

    The mail server is connected to and logged in to; webhooks are only parsed, since every request
    would post something. Raises ConfigurationError without a file of subscriptions.
    """
    found = load_subscriptions(settings)
    if found.path is None:
        raise ConfigurationError(
            "there are no subscriptions", f"Write a file with `{KIND.command}`, then edit it"
        )
    registry = load_registry(settings.facilities_file, settings)
    groups = {name: facility.group for name, facility in registry.facilities.items()}
    groups |= dict.fromkeys(registry.invalid)  # their group is not known
    mail_problem = ""
    if any(subscription.to for subscription in found.valid):
        with closing(MailServer(settings)) as server:
            try:
                server.check()
            except FerError as error:
                mail_problem = str(error)
    rows = [_describe(subscription, groups, settings, mail_problem) for subscription in found.valid]
    blank = {"to": "", "chat": "", "when": "", "facilities": ""}
    rows += [
        {"subscription": name, **blank, "problem": "; ".join(texts)}
        for name, texts in found.problems.items()
    ]
    return rows


def _describe(
    subscription: Subscription,
    groups: dict[str, str | None],
    settings: Settings,
    mail_problem: str,
) -> dict[str, Any]:
    members, problems = select_facilities(subscription, groups)
    if subscription.to and mail_problem:
        problems.append(mail_problem)
    if subscription.chat is not None:
        try:
            chat.find_service(settings, subscription.chat)
        except FerError as error:
            problems.append(str(error))
    weekly = f"every week on {subscription.weekday or 'mon'}"
    return {
        "subscription": subscription.name,
        "to": ", ".join(subscription.list_addresses()),
        "chat": subscription.chat or "",
        "when": "every day" if subscription.every == "day" else weekly,
        "facilities": ", ".join(members),
        "problem": "; ".join(problems),
    }
