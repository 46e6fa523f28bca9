"""`fer-batch incident`: tell people of a run that failed, is late, or found something new."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from fer_batch.cli.admin import GROUP
from fer_batch.cli.common import Json, load_settings, print_json
from fer_batch.console import print_table
from fer_batch.errors import EXIT_FINDINGS, ConfigurationError

if TYPE_CHECKING:
    from fer_batch.incidents.incident import Incident

RECIPIENTS_HINT = (
    "Set FER_INCIDENT_TO to mail addresses, or FER_INCIDENT_CHATS to names of chats; "
    "docs/operate.md describes them"
)


def register(app: App) -> None:
    """Add `incident`."""
    app.command(incident, group=GROUP)


def incident(
    file: Annotated[
        Path | None,
        Parameter(
            allow_leading_hyphen=True,
            help="JSON file with the incident, as the DAGs write it; - reads stdin.",
        ),
    ] = None,
    /,
    *,
    test: Annotated[bool, Parameter(help="Send a test message instead.")] = False,
    json: Json = False,
) -> int:
    """Tell FER_INCIDENT_TO and FER_INCIDENT_CHATS of an incident: a failed run, new findings.

    The DAGs call it. `fer-batch incident --test` sends a test message. The exit code is 3 if a
    recipient was not reached; the others were told.
    """
    from fer_batch.incidents import sending
    from fer_batch.incidents.incident import Incident

    if test == (file is not None):
        raise ConfigurationError("name either a file or --test", "See `fer-batch incident --help`")
    settings = load_settings()
    if file is None:
        if not sending.list_recipients(settings):
            raise ConfigurationError("nobody is to be told", RECIPIENTS_HINT)
        reported = Incident(kind="test", dag_id="test", run_id="test")
    else:
        reported = _read(file)
    message, told = sending.send_incident(settings, reported)
    rows = [asdict(each) for each in told]
    if json:
        tasks = [task.model_dump() for task in message.tasks]
        print_json({"subject": message.subject, "text": message.text, "tasks": tasks, "told": rows})
    else:
        print_table("Told", rows)
    return EXIT_FINDINGS if any(each.state == "failed" for each in told) else 0


def _read(file: Path) -> Incident:
    """The incident in a JSON file. Raises ConfigurationError and OSError."""
    from pydantic import ValidationError

    from fer_batch.incidents.incident import Incident

    data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    try:
        return Incident.model_validate_json(data)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) or e["type"] for e in error.errors())
        raise ConfigurationError(
            f"the incident is invalid: {fields}", "Use the JSON that the DAGs write"
        ) from None
