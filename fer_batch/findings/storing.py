"""What a run finds is stored: findings are opened, extended and closed.

It takes the lock `findings`, so that concurrent runs and people decide one after another. Which
findings are opened and closed is decided in episodes.py, from the days that show a problem and from
what the other checked days could have shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import sqlalchemy as sa

from fer_batch.database import connections
from fer_batch.database.statements import load_statements
from fer_batch.findings.episodes import ClosingRule, Decision, Episode, Evidence, Problem, decide
from fer_batch.log import get_logger
from fer_batch.records import Batch
from fer_batch.settings import Settings

log = get_logger(__name__)

_STATEMENTS = load_statements(__file__)


def store_findings(
    connection: sa.Connection,
    batches: Iterable[Batch],
    findings: Iterable[Mapping[str, Any]],
    run_id: str,
    settings: Settings,
) -> None:
    """Store what a run found in its batches, and open, extend and close findings accordingly.

    `findings` are those of `pipeline.checks.check_data`; they replace what earlier checks of the
    batches found. A finding about a facility of which no batch was checked, because its entry in
    the registry is invalid, replaces nothing. Findings of other facilities stay as they are, except
    that those of facilities that left the registry are closed. If something of a day was erased
    after the run began, the details of its findings are left out.
    """
    connections.lock(connection, "findings")
    checked = sorted(set(batches), key=lambda batch: (batch.facility_id, batch.capture_day))
    found = _merge_findings(findings)
    params = _build_params(checked, found)
    connection.execute(_STATEMENTS["delete_days"], params)
    connection.execute(_STATEMENTS["record_checked_days"], params | {"run_id": run_id})
    erased = _load_erased(connection, found, run_id)
    for (problem, day), row in found.items():
        if Batch(problem.facility_id, day) in erased:
            row["details"] = ""
    _Store(connection, found, run_id, settings).write(params)
    connection.execute(_STATEMENTS["close_removed_facilities"])


def is_checked(connection: sa.Connection, batches: Iterable[Batch], run_id: str) -> bool:
    """Whether this run is the last one that stored findings of these batches."""
    checked = list(batches)
    params = {
        "facility_ids": [batch.facility_id for batch in checked],
        "days": [batch.capture_day for batch in checked],
        "run_id": run_id,
    }
    return bool(connection.execute(_STATEMENTS["is_checked"], params).scalar_one())


def _merge_findings(
    findings: Iterable[Mapping[str, Any]],
) -> dict[tuple[Problem, date], dict[str, Any]]:
    """The findings by problem and day; the details of several about the same are joined.

    The first line of `details` is for everybody. The second one, if any, has the examples.
    """
    merged: dict[tuple[Problem, date], dict[str, Any]] = {}
    lines: dict[tuple[Problem, date], tuple[dict[str, None], dict[str, None]]] = {}
    for each in findings:
        at = Problem(each["facility_id"], each["check"], each["subject"]), each["capture_day"]
        merged.setdefault(
            at, {name: each[name] for name in ("severity", "meaning", "closing_rule")}
        )
        texts = (each["finding"] or "", each.get("example") or "")
        for known, text in zip(lines.setdefault(at, ({}, {})), texts, strict=True):
            known.update({" ".join(text.splitlines()): None} if text else {})
    for at, (findings_of, examples) in lines.items():
        example = f"\n{'; '.join(examples)}" if examples else ""
        merged[at]["details"] = "; ".join(findings_of) + example
    return merged


def _build_params(
    checked: Sequence[Batch], found: Collection[tuple[Problem, date]]
) -> dict[str, Any]:
    return {
        "facility_ids": [batch.facility_id for batch in checked],
        "days": [batch.capture_day for batch in checked],
        "found_facilities": [problem.facility_id for problem, _ in found],
        "found_checks": [problem.check for problem, _ in found],
        "found_subjects": [problem.subject for problem, _ in found],
        "found_days": [day for _, day in found],
    }


def _load_erased(
    connection: sa.Connection, found: Collection[tuple[Problem, date]], run_id: str
) -> set[Batch]:
    ids = sorted({problem.facility_id for problem, _ in found})
    params = {"facility_ids": ids, "run_id": run_id}
    rows = connection.execute(_STATEMENTS["list_erased_days"], params)
    return {Batch(row.facility_id, row.capture_day) for row in rows}


class _Store:
    """Writes what `decide` decides about each problem of some facilities."""

    def __init__(
        self,
        connection: sa.Connection,
        found: Mapping[tuple[Problem, date], dict[str, Any]],
        run_id: str,
        settings: Settings,
    ) -> None:
        self._connection = connection
        self._found = found
        self._run_id = run_id
        self._settings = settings
        self._days: list[dict[str, Any]] = []
        self._extended: list[dict[str, Any]] = []

    def write(self, params: Mapping[str, Any]) -> None:
        """Decide about all problems of the facilities in `params`, and write the decisions."""
        episodes, shown, rules = self._load(params)
        evidence = self._load_evidence(episodes, shown, rules)
        opened = closed = 0
        for problem in sorted(rules, key=lambda each: (each.facility_id, each.check, each.subject)):
            rule, days = rules[problem], shown[problem]
            clear = [
                each.day
                for each in evidence[problem.facility_id]
                if each.day not in days and each.is_clear(rule, problem.subject)
            ]
            decision = decide(rule, episodes[problem], days, clear)
            self._write(problem, episodes[problem], days, decision)
            opened += bool(decision.opened)
            closed += bool(decision.closed)
        if self._days:
            self._connection.execute(_STATEMENTS["store_day"], self._days)
        if self._extended:
            self._connection.execute(_STATEMENTS["extend_finding"], self._extended)
        log.info("findings stored", opened=opened, closed=closed)

    def _load(
        self, params: Mapping[str, Any]
    ) -> tuple[
        Mapping[Problem, list[Episode]],
        Mapping[Problem, dict[date, int | None]],
        Mapping[Problem, ClosingRule],
    ]:
        """The stored findings, the days and the closing rule of each problem."""
        episodes: dict[Problem, list[Episode]] = defaultdict(list)
        shown: dict[Problem, dict[date, int | None]] = defaultdict(dict)
        rules: dict[Problem, ClosingRule] = {}
        ids = sorted({*params["facility_ids"], *params["found_facilities"]})
        rows = self._connection.execute(
            _STATEMENTS["load_episodes"], {**params, "facility_ids": ids}
        )
        for row in rows.mappings():
            problem = Problem(row["facility_id"], row["check_name"], row["subject"])
            rules[problem] = row["closing_rule"]
            names = ("finding_id", "first_day", "last_day", "is_closed", "is_closed_by_person")
            episodes[problem].append(Episode(**{name: row[name] for name in names}))
            shown[problem].update(dict.fromkeys(row["days"], row["finding_id"]))
        for (problem, day), finding in self._found.items():
            rules[problem] = finding["closing_rule"]
            shown[problem].setdefault(day, None)
        return episodes, shown, rules

    def _load_evidence(
        self,
        episodes: Mapping[Problem, Sequence[Episode]],
        shown: Mapping[Problem, Mapping[date, int | None]],
        rules: Mapping[Problem, ClosingRule],
    ) -> Mapping[str, Sequence[Evidence]]:
        """The checked days of each facility after the first of its days that are not decided."""
        after: dict[str, date] = {}
        for problem, days in shown.items():
            if rules[problem] == "same day":
                continue
            not_closed = {e.finding_id for e in episodes.get(problem, ()) if not e.is_closed}
            undecided = [day for day, owner in days.items() if owner is None]
            own = [day for day, owner in days.items() if owner in not_closed]
            undecided += [max(own)] if own else []
            for day in undecided:
                facility_id = problem.facility_id
                after[facility_id] = min(day, after.get(facility_id, day))
        found: dict[str, list[Evidence]] = defaultdict(list)
        params = {
            "facility_ids": sorted(after),
            "days": [after[facility_id] for facility_id in sorted(after)],
            "alert_min_faces": self._settings.alert_min_faces,
            "alert_min_sessions": self._settings.alert_min_sessions,
        }
        for row in self._connection.execute(_STATEMENTS["load_evidence"], params).mappings():
            found[row["facility_id"]].append(
                Evidence(
                    row["capture_day"],
                    row["has_images"],
                    None if row["cameras"] is None else frozenset(row["cameras"]),
                    row["has_figure"],
                    frozenset(row["changes"]),
                )
            )
        return found

    def _write(
        self,
        problem: Problem,
        episodes: Sequence[Episode],
        shown: Mapping[date, int | None],
        decision: Decision,
    ) -> None:
        owners = {day: owner for day, owner in shown.items() if owner is not None}
        owners |= decision.attached
        for days, reason in [(decision.opened, None), *decision.past]:
            if days:
                owners |= dict.fromkeys(days, self._open(problem, days, reason))
        own = {day: owner for day, owner in owners.items() if (problem, day) in self._found}
        self._days += [
            {
                "finding_id": owner,
                "capture_day": day,
                "details": self._found[problem, day]["details"],
                "run_id": self._run_id,
            }
            for day, owner in sorted(own.items())
        ]
        for each in episodes:
            days = sorted(day for day, owner in own.items() if owner == each.finding_id)
            if days:
                self._extended.append(
                    {
                        "finding_id": each.finding_id,
                        "first_day": days[0],
                        "last_day": each.last_day if each.is_closed else days[-1],
                        **self._describe(problem, days[-1]),
                    }
                )
            if not each.is_closed and decision.closed:
                params = {"finding_id": each.finding_id, "comment": decision.closed}
                self._connection.execute(_STATEMENTS["close_by_run"], params)

    def _open(self, problem: Problem, days: Sequence[date], closed_comment: str | None) -> int:
        row = {
            "facility_id": problem.facility_id,
            "check_name": problem.check,
            "subject": problem.subject,
            "first_day": days[0],
            "last_day": days[-1],
            "closed_comment": closed_comment,
            **self._describe(problem, days[-1]),
        }
        opened = self._connection.execute(_STATEMENTS["open_finding"], row)
        return int(opened.scalar_one())

    def _describe(self, problem: Problem, day: date) -> dict[str, Any]:
        found = self._found[problem, day]
        return {name: found[name] for name in ("severity", "meaning", "closing_rule")}
