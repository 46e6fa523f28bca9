"""What a message about an incident says: which run, what went wrong, what to do, and a link.

The facts come from the DAGs, as JSON. Texts of errors may contain anything, so `redact` removes
what looks like a secret or like the key of an image. Of a finding only its kind is told: its
details may name images and counts that are not published.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict

from fer_batch.digests.content import clean
from fer_batch.reporting import formatting

Tidy = Callable[[str], str]
"""Makes a text of somebody else a line of a message."""
Kind = Literal["failed run", "late run", "new findings", "test"]

SHOWN = 20
"""A message names at most so many tasks, and so many findings."""
ERROR_CHARACTERS = 600
NO_ERROR = "it ended without a message; its log may say why"

_SUBJECTS: dict[Kind, str] = {
    "failed run": "run failed",
    "late run": "run is late",
    "new findings": "new findings",
    "test": "test message",
}
_WHAT: dict[Kind, str] = {
    "failed run": "failed",
    "late run": "is late: it takes longer than usual",
    "new findings": "succeeded, and its data checks found something new",
    "test": "is only a test of this message",
}
_REASONS = {
    "timed_out": "It exceeded the time limit of a run. Results that were written are kept: clear "
    "the tasks that are not green.",
    "all_tasks_deadlocked": "None of its tasks can start any more. Clear the task that failed, "
    "with its downstream.",
}
_TO_DO: dict[Kind, str] = {
    "failed run": "Correct the cause, then clear the failed task with its downstream. The page "
    "docs/operate.md explains each error and each finding.",
    "late run": "Look for the task that failed, runs or waits. The run goes on.",
    "new findings": "`fer-batch findings` lists their details, docs/operate.md explains each.",
    "test": "Nothing. The messages of real incidents get here too.",
}

_EXTENSIONS = "jpe?g|png|webp|gif|bmp|tiff?|hei[cf]|avif|jxl|zip|tar|parquet"
_REMOVED = (
    (re.compile(r"(?<=://)[^/\s@]*@"), ""),  # the login of a URL
    (re.compile(r"(://[^\s?]*)\?\S*"), r"\1?…"),  # a query, such as the signature of a request
    (re.compile(r"(s3://[^/\s]+)/\S*"), r"\1/…"),
    (re.compile(rf"""(["'])[^"'\n]*\.(?:{_EXTENSIONS})\1""", re.IGNORECASE), "an image"),
    (re.compile(rf"""[^\s"'(),;]*\.(?:{_EXTENSIONS})\b""", re.IGNORECASE), "an image"),
    # A key without an extension. Paths of files begin with a slash, and URLs have a colon.
    (re.compile(r"""(?<![\w.~/:=%+@-])(?:[\w.~=%+@-]+/){2,}[\w.~=%+@-]*"""), "…"),
)


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FailedTask(_Facts):
    """A task that failed, and the last error that it logged; empty if it logged none."""

    name: str
    error: str = ""


class NewFinding(_Facts):
    """A finding that the run opened, without its details."""

    facility_id: str
    check: str
    subject: str = ""
    severity: Literal["error", "warning"]
    meaning: str
    first_day: date
    last_day: date


class Incident(_Facts):
    """An incident as the DAGs report it. `reason` is Airflow's word for why a run failed."""

    kind: Kind
    dag_id: str
    run_id: str
    capture_day: date | None = None
    reason: str = ""
    link: str = ""
    tasks: tuple[FailedTask, ...] = ()
    findings: tuple[NewFinding, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """The subject, a single line, the text, and the tasks with errors that may be told."""

    subject: str
    text: str
    tasks: Sequence[FailedTask] = ()


def write_message(incident: Incident, secrets: Collection[str] = ()) -> Message:
    """The message about an incident. None of the `secrets` is in it."""

    def tidy(text: str) -> str:
        return clean(redact(text, secrets))

    day = "" if incident.capture_day is None else incident.capture_day.isoformat()
    tasks = [FailedTask(name=tidy(t.name), error=_shorten(tidy(t.error))) for t in incident.tasks]
    whose = _name_facilities(incident)
    subject = ", ".join(filter(None, (_SUBJECTS[incident.kind], tidy(incident.dag_id), day, whose)))
    sections = [
        [_describe_run(incident, tidy(incident.dag_id)), _REASONS.get(incident.reason, "")],
        _list("Failed tasks", [f"{task.name}: {task.error or NO_ERROR}" for task in tasks]),
        _list("New findings", [_describe_finding(each, tidy) for each in incident.findings]),
        [f"What to do: {_TO_DO[incident.kind]}"],
        [f"Run: {tidy(incident.run_id)}", incident.link],
    ]
    blocks = ("\n".join(filter(None, lines)) for lines in sections)
    return Message(f"fer-batch: {subject}", "\n\n".join(filter(None, blocks)) + "\n", tasks)


def redact(text: str, secrets: Collection[str] = ()) -> str:
    """A text without these secrets, without logins in URLs, and without keys of images."""
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            text = text.replace(secret, "**********")
    for pattern, replacement in _REMOVED:
        text = pattern.sub(replacement, text)
    return text


def _name_facilities(incident: Incident) -> str:
    """Whose findings are new: the facility, or how many facilities."""
    ids = sorted({each.facility_id for each in incident.findings})
    return f"{len(ids)} facilities" if len(ids) > 1 else "".join(ids)


def _describe_run(incident: Incident, dag_id: str) -> str:
    day = incident.capture_day
    of_day = "" if day is None else f" for the capture day {formatting.format_day(day)}"
    return f"The run of the DAG {dag_id}{of_day} {_WHAT[incident.kind]}."


def _shorten(error: str) -> str:
    return error if len(error) <= ERROR_CHARACTERS else f"{error[:ERROR_CHARACTERS]}…"


def _describe_finding(finding: NewFinding, tidy: Tidy) -> str:
    first, last = finding.first_day, finding.last_day
    days = formatting.format_day(last) if first == last else formatting.format_days(first, last)
    subject = f" ({tidy(finding.subject)})" if finding.subject else ""
    what = f"{finding.check}{subject}, {finding.severity}: {tidy(finding.meaning)}"
    return f"{finding.facility_id}, {days}: {what}"


def _list(title: str, lines: Sequence[str]) -> list[str]:
    """A heading and its lines, each once; nothing without lines."""
    unique = list(dict.fromkeys(lines))
    if not unique:
        return []
    more = len(unique) - SHOWN
    rest = [f"- {more} more"] if more > 0 else []
    return [f"{title}:", *(f"- {line}" for line in unique[:SHOWN]), *rest]
