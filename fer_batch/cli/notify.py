"""Digests by mail and to chats: sending them, and the file of subscriptions."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from fer_batch.cli.admin import GROUP as ADMIN_GROUP
from fer_batch.cli.common import DEFAULTS, Json, load_settings, print_json, show, write_example
from fer_batch.cli.nightly import GROUP, Selected
from fer_batch.errors import EXIT_FINDINGS

subscriptions = App(
    name="subscriptions",
    help="Who gets which digest.",
    group=ADMIN_GROUP,
    default_parameter=DEFAULTS,
)


def register(app: App) -> None:
    """Add `notify` and `subscriptions`."""
    app.command(notify, group=GROUP)
    app.command(subscriptions)


def notify(
    selected: Selected,
    *,
    subscription: Annotated[
        tuple[str, ...],
        Parameter(help="Only this subscription; may be repeated. Default: all."),
    ] = (),
    resend: Annotated[bool, Parameter(help="Send also digests that were sent before.")] = False,
    preview: Annotated[
        bool,
        Parameter(
            help="Print the digests of the day instead of sending them; with --json as HTML too."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Send the digests that are due, by mail and to chats, each once.

    The nightly run of the selected facilities counts as finished if the capture day is over. A
    digest is sent when those of all its facilities have finished; the others wait for the run of
    the last time zone. Without a file of subscriptions nothing is sent.
    """
    night_run = selected.open_run()
    if preview:
        digests = night_run.preview_digests(subscription)
        if json:
            print_json([asdict(digest) for digest in digests])
            return
        for digest in digests:
            recipients = ", ".join(digest.recipients)
            sys.stdout.write(f"To: {recipients}\nSubject: {digest.subject}\n\n{digest.text}\n")
        return
    sent, failure = night_run.notify(subscription, resend=resend)
    show("Digests", [asdict(each) for each in sent], json)
    if failure is not None:
        raise failure


@subscriptions.command
def init(
    file: Annotated[
        Path | None,
        Parameter(help="The file to write; default: subscriptions.toml next to the registry."),
    ] = None,
    /,
    *,
    force: Annotated[bool, Parameter(help="Replace a file that exists.")] = False,
) -> None:
    """Write a file of subscriptions with commented examples, to edit. They send nothing."""
    from fer_batch.digests.subscriptions import FILE_NAME
    from fer_batch.resources import find_example_subscriptions

    settings = load_settings()
    write_example(
        find_example_subscriptions(),
        file,
        settings.subscriptions_file or settings.facilities_file.with_name(FILE_NAME),
        "FER_SUBSCRIPTIONS_FILE",
        "`fer-batch subscriptions check`. docs/notify.md",
        force=force,
    )


@subscriptions.command
def check(*, json: Json = False) -> int:
    """Show who gets which facilities when; test the mail server. The exit code is 3 for a fault."""
    from fer_batch.digests import diagnosis

    rows = diagnosis.check_subscriptions(load_settings())
    show("Subscriptions", rows, json)
    return EXIT_FINDINGS if any(row["problem"] for row in rows) else 0
