"""`fer-batch audit`: sample faces, label them, and activate the labels."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from fer_batch.cli import admin
from fer_batch.cli.common import DEFAULTS, Json, load_settings, print_json, show
from fer_batch.console import print_table
from fer_batch.errors import ConfigurationError

if TYPE_CHECKING:
    from fer_batch.audit.agreement import Agreement
    from fer_batch.audit.sampling import Drawn

audit = App(
    name="audit",
    help="Label a random sample of a facility's own faces, to make its figures more precise.",
    group=admin.GROUP,
    default_parameter=DEFAULTS,
)

Number = Annotated[int, Parameter(help="The number of an audit, as `list` shows it.")]


def register(app: App) -> None:
    """Add `audit`."""
    app.command(audit)


@audit.command
def sample(
    *,
    facility: Annotated[str, Parameter(help="A facility id.")],
    faces: Annotated[
        int, Parameter(help="How many faces to sample. From 200 labels on, the method is `local`.")
    ] = 200,
    from_day: Annotated[
        date | None,
        Parameter(
            name="--from", help="First capture day to sample; default: 27 days before the last."
        ),
    ] = None,
    to_day: Annotated[
        date | None,
        Parameter(
            name="--to", help="Last capture day to sample; default: the newest published day."
        ),
    ] = None,
    seed: Annotated[
        int | None, Parameter(help="Samples the same faces again; default: a random number.")
    ] = None,
    json: Json = False,
) -> None:
    """Store a random sample of the faces of published results as a new audit.

    Each face of the window has the same probability. Prints how wide the intervals of the happy
    rate are expected to become when all of them are labeled, in percentage points, if the CNN errs
    as on the benchmark.
    """
    from fer_batch.audit import sampling

    drawn = sampling.sample(load_settings(), facility, faces, from_day, to_day, seed)
    if json:
        print_json(asdict(drawn))
    else:
        _print_drawn(drawn)


def _print_drawn(drawn: Drawn) -> None:
    stored = drawn.audit
    labels = f"with {stored.faces_drawn} labels"
    print_table(
        f"Audit {stored.audit_id}: expected width of the 95 % interval of the happy rate, in "
        "percentage points",
        [
            {
                "period": each.period,
                "faces": each.faces,
                "without": each.width_without and round(100 * each.width_without),
                labels: round(100 * each.width),
            }
            for each in drawn.expectations
        ],
    )
    sys.stdout.write(
        f"\nSampled: {stored.faces_drawn} of {stored.faces_in_window:,} faces of {drawn.days} days "
        f"from {stored.first_day} to {stored.last_day}, from {drawn.sessions} sessions, with seed "
        f"{stored.seed}.\nLabel them: fer-batch audit label {stored.audit_id} --rater NAME\n"
    )


@audit.command
def label(
    number: Number,
    /,
    *,
    rater: Annotated[str, Parameter(help="Who labels: a name, the same each time.")],
    settle: Annotated[
        bool, Parameter(help="Show only the faces on which two raters disagree.")
    ] = False,
    port: Annotated[
        int, Parameter(help="Port of this machine; 0 is any free one.", show_default=True)
    ] = 8640,
) -> None:
    """Serve a page on this machine on which a person labels the faces of an audit, until Ctrl-C.

    It shows one face after the other, without what the CNN calls it. The address is printed; on
    another device, open it through `ssh -L`. Each label is stored at once, and another call
    continues. The extra `audit` must be installed.
    """
    from fer_batch.audit.page import server

    server.serve_labeling(load_settings(), number, rater, settle=settle, port=port)


@audit.default
@audit.command(name="list")
def list_audits(
    *,
    facility: Annotated[str | None, Parameter(help="A facility id. Default: all.")] = None,
    json: Json = False,
) -> None:
    """List the audits, newest first: their faces, labels and raters, and when they are active."""
    from fer_batch.audit import audits
    from fer_batch.database import connections, schema

    with (
        schema.open_engine(load_settings()) as engine,
        connections.transaction(engine) as connection,
    ):
        rows = audits.list_audits(connection, facility)
    if json:
        print_json(rows)
        return
    shown = [
        {
            "audit": row["audit_id"],
            "facility": row["facility_id"],
            "window": f"{row['first_day']} to {row['last_day']}",
            "faces": row["faces"],
            "labeled": row["labeled"],
            "raters": ", ".join(row["raters"] or ()),
            "version": row["model_version"][:12],
            "active": "not finished"
            if row["start_day"] is None
            else f"from {row['start_day']}, until before {row['expiry_day']}",
        }
        for row in rows
    ]
    print_table("Audits", shown)


@audit.command(name="show")
def show_agreement(number: Number, /, *, json: Json = False) -> None:
    """Show how far the raters of an audit agree: Cohen's kappa, their confusion, can't tell."""
    from fer_batch.audit import audits, finishing
    from fer_batch.database import connections, schema

    with (
        schema.open_engine(load_settings()) as engine,
        connections.transaction(engine) as connection,
    ):
        stored = audits.load(connection, number)
        agreement = finishing.load_agreement(connection, number)
    if json:
        print_json({"audit": asdict(stored), "agreement": asdict(agreement)})
    else:
        _print_agreement(agreement)


def _print_agreement(agreement: Agreement) -> None:
    from fer_batch.audit.agreement import CLASSES

    raters = [
        {"rater": rater, "labeled": labeled, "can't tell": cannot_tell}
        for rater, labeled, cannot_tell in zip(
            agreement.raters, agreement.labeled, agreement.cannot_tell, strict=True
        )
    ]
    print_table("Raters", raters)
    if len(agreement.raters) < 2:
        return
    first, second = agreement.raters
    print_table(
        f"Faces that both have labeled: {first} (rows) and {second} (columns)",
        [
            {first: name, **dict(zip(CLASSES, row, strict=True))}
            for name, row in zip(CLASSES, agreement.confusion, strict=True)
        ],
    )
    kappa = agreement.kappa
    sys.stdout.write(
        f"\nCohen's kappa of {agreement.both} faces: "
        + (
            "not defined"
            if kappa is None
            else f"{kappa.kappa:.2f} (95 % interval {kappa.low:.2f} to {kappa.high:.2f})"
        )
        + f". They disagree on {agreement.disputed}, of which {agreement.settled} are settled.\n"
    )


@audit.command
def finish(
    number: Number,
    /,
    *,
    from_day: Annotated[
        date | None,
        Parameter(name="--from", help="First capture day that it corrects; default: today."),
    ] = None,
    json: Json = False,
) -> None:
    """Activate an audit: from a day on, its labels correct the summaries.

    This cannot be undone: the labels do not change any more, and what nobody has labeled or settled
    stays so. Earlier days stay as they are; `summarize --from MONDAY --to SUNDAY` re-estimates
    them. It expires after FER_AUDIT_DAYS.
    """
    from fer_batch.audit import audits, finishing
    from fer_batch.database import connections, schema

    loaded = load_settings()
    if from_day is not None:
        with schema.open_engine(loaded) as engine, connections.transaction(engine) as connection:
            facility = audits.load_facility(loaded, audits.load(connection, number).facility_id)
        command = f"fer-batch summarize --facility {facility.facility_id}"
        if from_day < facility.compute_local_day(datetime.now(UTC)):
            raise ConfigurationError(
                f"--from {from_day} is in the past, and published figures stay",
                "Finish the audit without --from, then re-estimate the earlier days with "
                f"`{command} --from MONDAY --to SUNDAY`",
            )
    finished = finishing.finish(loaded, number, from_day)
    local = finished.local
    if json:
        print_json(
            {
                "audit": asdict(finished.audit),
                "labels": local.labels,
                "method": local.method,
                "agreement": asdict(finished.agreement),
            }
        )
        return
    _print_agreement(finished.agreement)
    sys.stdout.write(
        f"\nAudit {number} of {finished.audit.facility_id} is active from {local.start_day} "
        f"until before {local.expiry_day}, with {local.labels} labeled faces; method "
        f"{local.method}.\n"
    )


@audit.command
def refresh(
    number: Number,
    /,
    *,
    cnn: Annotated[
        str | None,
        Parameter(
            help="The CNN: a name, the beginning of a model version, or the path of a card; "
            "default: the active one."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Score the faces of an audit with another model version, so that its summaries use the labels.

    Run it before the CNN is promoted, or after. Objects that are gone or were overwritten are
    counted; their faces do not count for this model version.
    """
    from fer_batch.audit import refreshing
    from fer_batch.model import active_model

    loaded = load_settings()
    chosen = (
        active_model.load_active(loaded).cnn if cnn is None else active_model.find_cnn(loaded, cnn)
    )
    refreshed = refreshing.refresh(loaded, number, chosen)
    row: dict[str, Any] = {
        "audit": number,
        "model_version": refreshed.model_version if json else refreshed.model_version[:12],
        "scored": refreshed.scored,
        "called the same": refreshed.same,
        **refreshed.not_scored,
    }
    show("Refreshed", [row], json)
