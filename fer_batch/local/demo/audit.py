"""The audit of a demo: random faces of one facility, labeled with the expressions that they show.

It takes the steps of a person: sample the faces, label them, activate the labels and
re-estimate the days. Only the labels are not a person's.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from datetime import date, timedelta
from itertools import groupby

import sqlalchemy as sa

from fer_batch.audit import audits, finishing, sampling
from fer_batch.audit.labeling import Label, open_labeling
from fer_batch.console import print_table
from fer_batch.database import connections, schema
from fer_batch.database.statements import load_statements
from fer_batch.errors import PermanentError
from fer_batch.local.stack import Stack
from fer_batch.records import CalledClass
from fer_batch.reporting import formatting, wording

AUDITED = "harbour-cafe"
"""The facility that has an audit."""
FACES = 200
RATER = "the true expressions"
_SEED = 48
_STATEMENTS = load_statements(__file__)


def audit_facility(
    stack: Stack, true_classes: Mapping[str, CalledClass], first_day: date, last_day: date
) -> bool:
    """Audit the facility `AUDITED`, unless it has an audit already; whether it was done.

    `true_classes` tells by key what the face of an image shows. Raises PermanentError if the days
    cannot be re-estimated, and what the functions of the package `audit` raise.
    """
    settings = stack.build_settings(database_url=stack.build_env(as_admin=True)["FER_DATABASE_URL"])
    with schema.open_engine(settings) as engine, connections.transaction(engine) as connection:
        if audits.list_audits(connection, AUDITED):
            return False
    drawn = sampling.sample(settings, AUDITED, FACES, first_day, last_day, seed=_SEED)
    with open_labeling(settings, drawn.audit.audit_id, RATER) as labeling:
        for face in labeling.faces:
            labeling.save(face.number, Label(true_classes[face.image.key].value))
    finishing.finish(settings, drawn.audit.audit_id)
    _estimate_anew(stack, first_day, last_day)
    return True


def print_audit(engine: sa.Engine, name: str, first_day: date, last_day: date) -> None:
    """Print what the audit changed: the newest day, week and four weeks before and after it."""
    params = {"facility_id": AUDITED, "first_day": first_day, "last_day": last_day}
    with connections.translate_errors(), engine.connect() as connection:
        found = [
            dict(row)
            for row in connection.execute(_STATEMENTS["list_revisions"], params).mappings()
        ]
    rows = {}
    for period, of_period in groupby(found, lambda row: row["period"]):
        for _, revisions in groupby(of_period, lambda row: row["last_day"]):
            first, *_, last = [*revisions] * 2
            rows[period] = {  # the newest one stays
                "period": wording.name_days(last),
                "without": formatting.format_rate(first, "happy_rate"),
                "with the audit": formatting.format_rate(last, "happy_rate"),
                "method": last["method"],
                "labels": str(last["audit_labels"] or 0),
            }
    print_table(f"Audit of {name}, labeled with the true expressions", list(rows.values()))


def _estimate_anew(stack: Stack, first_day: date, last_day: date) -> None:
    """Run `fer-batch summarize` on the days: an audit alone changes no published figure.

    It begins with the Monday before them, so that the first week is re-estimated as a whole.
    """
    monday = first_day - timedelta(days=first_day.weekday())
    command = [sys.executable, "-m", "fer_batch", "summarize", "--facility", AUDITED]
    command += ["--from", str(monday), "--to", str(last_day)]
    command += ["--run-id", f"audit/{secrets.token_hex(4)}", "--json"]
    env = {**os.environ, **stack.build_env()}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PermanentError(
            f"`fer-batch summarize` ended with {done.returncode}", done.stderr[-2000:]
        )
