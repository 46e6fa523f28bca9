"""The figures of a summary: what is published of the estimate of a period, and its verdict.

Here it is decided which clusters are used, whether there are enough faces and sessions to publish a
rate, and how the interval compares with the target, without any input or output. The estimate is
left to estimator.py, counting and storing to revisions.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fer_batch.facilities.registry import Facility
from fer_batch.satisfaction.audits import LocalAudit
from fer_batch.satisfaction.estimator import (
    ClusterTotals,
    Estimate,
    Rate,
    estimate,
)
from fer_batch.satisfaction.intervals import CONFIDENCE, Floats

MIN_FACES = 30
"""With fewer faces no rate is published: single visitors might be recognized in the numbers."""
MIN_SESSIONS = 10
"""With fewer sessions or blocks no rate is published, for the same reason."""

RATES = (
    *("happy_rate", "happy_rate_low", "happy_rate_high"),
    *("sad_rate", "sad_rate_low", "sad_rate_high"),
    "neither_rate",
    *("called_happy_rate", "called_happy_rate_low", "called_happy_rate_high"),
    *("called_sad_rate", "called_sad_rate_low", "called_sad_rate_high"),
)
"""The columns that are null if the period is suppressed."""
PRECISION = ("sessions_effective", "faces_effective", "design_effect", "benchmark_weight")
_CALLED = ("called_happy", "called_sad", "called_neither")
_FIGURE = (
    *RATES,
    *PRECISION,
    *_CALLED,
    *(
        "faces",
        "totals",
        "hours",
        "sessions",
        "session_rule",
        "method",
        "confidence",
        "faces_needed",
        "audit_id",
        "audit_labels",
    ),
)
"""The columns that stay together when a published figure is kept."""
_DECIMALS = 6
"""Figures are rounded, so that rounding errors of another machine cause no new revision."""


def compute_figures(
    totals: Mapping[str, Mapping[str, Any]],
    period: str,
    facility: Facility,
    confusion: Floats | None,
    is_due: bool = True,
    audit: LocalAudit | None = None,
) -> dict[str, Any]:
    """The columns of a summary that follow from its counts.

    `totals` holds the sums of the period by clustering, `gap` (sessions) and `blocks`, each as
    `ClusterTotals.to_json` writes them; without faces it is empty. `confusion` [3,3] is the
    confusion matrix in the card of the CNN, or None. `is_due` is false while more images of the
    period may come: a figure is published once. `audit` is the audit that corrects the rates too.
    Returns the columns of `RATES` and `PRECISION` with `method`, `sessions`, `session_rule`,
    `target_rate`, `confidence`, `verdict`, `audit_id` and `audit_labels`.
    """
    clusterings = parse_clusterings(totals)
    rule = _choose_rule(clusterings, facility)
    figures: dict[str, Any] = dict.fromkeys(
        (*RATES, *PRECISION, "sessions", "faces_needed", "audit_id", "audit_labels")
    )
    is_part_of_week = period == "day" and facility.publish_period == "week"
    figures |= {
        "session_rule": rule if clusterings else None,
        "target_rate": facility.target_rate,
        "confidence": CONFIDENCE,
        "method": "suppressed",
        # The week, which is what is published, waits for its days.
        "verdict": "pending" if facility.publish_period == "week" and not is_due else "suppressed",
    }
    if not clusterings:
        return figures
    estimated = _estimate(clusterings, rule, facility, confusion, audit)
    figures["sessions"] = clusterings[rule].clusters if rule in clusterings else None
    if is_part_of_week or _is_too_small(estimated, figures["sessions"]):
        return figures
    if not is_due:
        return figures | {"verdict": "pending"}
    figures |= {name: round(getattr(estimated, name), _DECIMALS) for name in PRECISION[1:]}
    if estimated.sessions_effective is not None:
        figures["sessions_effective"] = round(estimated.sessions_effective, _DECIMALS)
    for name in ("happy", "sad", "called_happy", "called_sad"):
        figures |= _name_rate(f"{name}_rate", getattr(estimated, name))
    figures["neither_rate"] = round(estimated.neither_rate, _DECIMALS)
    figures["method"] = estimated.method
    if audit is not None and estimated.method == "local":
        figures |= {"audit_id": audit.audit_id, "audit_labels": audit.labels}
        figures["method"] = audit.method
    figures["verdict"] = _judge(figures["method"], figures, facility.target_rate)
    if figures["verdict"] == "inconclusive":
        figures["faces_needed"] = _compute_faces_needed(estimated, facility.target_rate)
    return figures


def keep_published(
    newest: Mapping[Any, Any],
    summary: Mapping[str, Any],
    facility: Facility,
    confusion: Floats | None,
    audit: LocalAudit | None = None,
) -> Mapping[str, Any]:
    """The summary, with the published figure of the newest one if it must stay.

    Two figures that differ by a few faces would reveal those faces. So a figure stays until at
    least `MIN_FACES` faces, of at least `MIN_SESSIONS` sessions if they are known, were added or
    removed, or as many labels of its audit erased. Only the numbers of images and of scored faces
    follow at once, and the verdict follows the target. If another audit corrects the rates, they
    are computed again for the same faces.
    """
    if not is_published(newest["method"]) or newest["model_version"] != summary["model_version"]:
        return summary
    changed = sum(abs(newest[name] - summary[name]) for name in _CALLED)
    is_same_audit = newest["audit_id"] == (None if audit is None else audit.audit_id)
    erased = 0
    if audit is not None and is_same_audit:
        erased = abs(newest["audit_labels"] - audit.labels)
    if changed == erased == 0 and summary["verdict"] != "pending":
        return summary
    is_small = changed < MIN_FACES or (
        summary["session_rule"] == newest["session_rule"] == "gap"
        and abs((summary["sessions"] or 0) - newest["sessions"]) < MIN_SESSIONS
    )
    if (not is_small or erased >= MIN_FACES) and summary["verdict"] != "pending":
        return summary
    kept = {name: newest[name] for name in _FIGURE}
    if not is_same_audit:
        again = compute_figures(
            newest["totals"], summary["period"], facility, confusion, audit=audit
        )
        return {**summary, **kept, **again}
    kept["verdict"] = _judge(newest["method"], kept, summary["target_rate"])
    if newest["target_rate"] != summary["target_rate"]:
        estimated = _estimate(
            parse_clusterings(newest["totals"]), newest["session_rule"], facility, confusion, audit
        )
        kept["faces_needed"] = (
            _compute_faces_needed(estimated, summary["target_rate"])
            if kept["verdict"] == "inconclusive"
            else None
        )
    return {**summary, **kept}


def is_published(method: str) -> bool:
    """Whether a summary of this method has rates."""
    return method in ("raw", "benchmark", "local")


def parse_clusterings(
    totals: Mapping[str, Mapping[str, Any]],
) -> dict[str, ClusterTotals]:
    """The totals of a summary by clustering, as they are stored."""
    return {rule: ClusterTotals.from_json(sums) for rule, sums in totals.items()}


def add_totals(parts: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The totals of a period from those of its days, for the clusterings that all of them have."""
    if not parts:
        return {}
    rules = sorted(set.intersection(*(set(part) for part in parts)))
    added = {}
    for rule in rules:
        first, *others = (ClusterTotals.from_json(part[rule]) for part in parts)
        for other in others:
            first += other
        added[rule] = first.to_json()
    return added


def hide_counts(summaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return summaries without what is not published: faces by class, and the sums of them.

    Of a suppressed day, without any count of faces.
    """
    left_out = (*_CALLED, "totals", "hours", "cameras", "former_figures")
    return [
        {
            name: None if name in _list_hidden(row) else value
            for name, value in row.items()
            if name not in left_out
        }
        for row in summaries
    ]


def _list_hidden(summary: Mapping[str, Any]) -> Sequence[str]:
    """The counts of faces that the view `satisfaction_daily` leaves empty."""
    if summary["method"] == "suppressed":
        return (
            *("images_scored", "faces_scored", "faces", "faces_effective", "faces_needed"),
            *("sessions", "sessions_effective", "design_effect"),
        )
    return () if summary["faces_scored"] == summary["faces"] else ("faces_scored",)


def _choose_rule(clusterings: Mapping[str, ClusterTotals], facility: Facility) -> str:
    """Sessions where the capture times are known, otherwise blocks in key order if there is one."""
    if "gap" in clusterings:
        return "gap"
    return "blocks" if facility.key_order == "time" else "design effect"


def _estimate(
    clusterings: Mapping[str, ClusterTotals],
    rule: str,
    facility: Facility,
    confusion: Floats | None,
    audit: LocalAudit | None,
) -> Estimate:
    # Sessions come first: they are what is counted, and the blocks are a second opinion.
    ordered = [clusterings[name] for name in ("gap", "blocks") if name in clusterings]
    design_effect = facility.design_effect if rule == "design effect" else None
    # A few labels alone would be no confusion matrix.
    is_usable = audit is not None and (confusion is not None or audit.method == "local")
    local = audit.counts if audit is not None and is_usable else None
    return estimate(ordered, confusion, local, design_effect=design_effect)


def _is_too_small(estimated: Estimate, sessions: int | None) -> bool:
    return estimated.faces < MIN_FACES or (sessions is not None and sessions < MIN_SESSIONS)


def _judge(method: str, figures: Mapping[str, Any], target: float | None) -> str:
    if method == "raw":
        return "no verdict"
    if target is None:
        return "no target"
    if figures["happy_rate_low"] > target:
        return "satisfied"
    return "not satisfied" if figures["happy_rate_high"] < target else "inconclusive"


def _compute_faces_needed(estimated: Estimate, target: float | None) -> int | None:
    """How many faces would make the verdict conclusive if the rate stayed the same.

    The squared half width of the interval falls with the number of faces to that of very many
    faces, where only the classifier's errors are left. None if even that interval contains the
    target, so that only an audit of the facility's own faces helps, or without a target.
    """
    if target is None:
        return None
    rate, limit = estimated.happy, estimated.happy_limit
    is_above = rate.rate > target
    half, least = (abs(each.rate - (each.low if is_above else each.high)) for each in (rate, limit))
    distance = abs(rate.rate - target)
    if least >= distance or half <= least:
        return None
    factor = (half**2 - least**2) / (distance**2 - least**2)
    return max(estimated.faces + 1, int(np.ceil(estimated.faces * factor)))


def _name_rate(name: str, rate: Rate) -> dict[str, float]:
    values = np.round([rate.rate, rate.low, rate.high], _DECIMALS).tolist()
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
