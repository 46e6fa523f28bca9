"""`fer-batch findings`: list what the data checks found, acknowledge it, close it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from fer_batch.cli import admin
from fer_batch.cli.common import DEFAULTS, Json, get_user, load_settings, print_json
from fer_batch.console import print_table
from fer_batch.findings.episodes import Severity, State

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from fer_batch.findings.history import StoredFinding

findings = App(
    name="findings",
    help="What the data checks found: list, acknowledge, close.",
    group=admin.GROUP,
    default_parameter=DEFAULTS,
)

Number = Annotated[int, Parameter(help="The number of a finding, as `list` shows it.")]
Others = Annotated[int, Parameter(help="Further numbers.")]
Comment = Annotated[
    str, Parameter(help="What was done or will be done; it is stored. Name no image key in it.")
]
By = Annotated[str | None, Parameter(help="Who does it; default: the name of the current user.")]


def register(app: App) -> None:
    """Add `findings`."""
    app.command(findings)


@findings.default
@findings.command(name="list")
def list_findings(
    *,
    facility: Annotated[
        tuple[str, ...], Parameter(help="A facility id; may be repeated. Default: all.")
    ] = (),
    state: Annotated[
        tuple[State, ...],
        Parameter(help="A state; may be repeated. Default: open and acknowledged."),
    ] = (),
    severity: Annotated[
        tuple[Severity, ...], Parameter(help="A severity; may be repeated. Default: both.")
    ] = (),
    json: Json = False,
) -> None:
    """List the findings: since when, what, and who takes care of it.

    A problem that several nights find is one finding. A run closes it when later days do not show
    it.
    """
    from fer_batch.database import connections, schema
    from fer_batch.findings import history

    with (
        schema.open_engine(load_settings()) as engine,
        connections.transaction(engine) as connection,
    ):
        history.check_facilities(connection, facility)
        found = history.list_findings(
            connection,
            facility or None,
            state or history.NOT_CLOSED,
            severity or history.SEVERITIES,
        )
    _show(found, json)


@findings.command(name="ack")
def acknowledge(
    first: Number,
    /,
    *others: Others,
    comment: Comment,
    by: By = None,
    json: Json = False,
) -> None:
    """Acknowledge findings: somebody takes care of them. They stay listed, but are not announced.

    Again with another comment: it replaces the first one.
    """
    from fer_batch.findings import history

    _change(history.acknowledge, {first, *others}, by, comment, json)


@findings.command(name="close")
def close(
    first: Number,
    /,
    *others: Others,
    comment: Comment,
    by: By = None,
    json: Json = False,
) -> None:
    """Close findings. If a later day shows the problem again, that is a new finding.

    Findings that are closed already stay as they are.
    """
    from fer_batch.findings import history

    _change(history.close, {first, *others}, by, comment, json)


def _change(
    action: Callable[[Connection, Collection[int], str, str], list[StoredFinding]],
    numbers: Collection[int],
    by: str | None,
    comment: str,
    json: bool,
) -> None:
    """Acknowledge or close findings in one transaction, and print them."""
    from fer_batch.database import connections, schema

    with (
        schema.open_engine(load_settings()) as engine,
        connections.transaction(engine) as connection,
    ):
        changed = action(connection, numbers, get_user() if by is None else by, comment)
    _show(changed, json)


def _show(found: Sequence[StoredFinding], json: bool) -> None:
    if json:
        print_json([asdict(each) for each in found])
    else:
        print_table("Findings", [_format_row(each) for each in found])


def _format_row(finding: StoredFinding) -> dict[str, Any]:
    what = f"{finding.check} ({finding.subject})" if finding.subject else finding.check
    state = finding.state
    comment = finding.acknowledged_comment or ""
    if state == "closed":
        by = finding.closed_by or "a run"
        comment = f"{by}: {finding.closed_comment}"
    elif state == "acknowledged":
        comment = f"{finding.acknowledged_by}: {comment}"
    return {
        "number": str(finding.finding_id),
        "facility": finding.facility_id,
        "finding": what,
        "severity": finding.severity,
        "first day": str(finding.first_day),
        "last day": str(finding.last_day),
        "state": state,
        "details": finding.details.replace("\n", "; "),
        "comment": comment,
    }
