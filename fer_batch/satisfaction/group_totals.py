"""The rate of several facilities together, its change, and how many labels an open verdict needs.

The facilities of a group were scored by the same CNN, so they share the error of its card: adding
up their rates would count that error once for each of them, as if it averaged out. Therefore their
called faces are added up and corrected once, also for a change, of which most of that error
cancels. Only published figures are added, so that a total reveals no suppressed one. Arithmetic
only, without any input or output.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_batch.satisfaction.change import Difference, compute_change
from fer_batch.satisfaction.estimator import (
    AuditTable,
    ClusterTotals,
    Rate,
    estimate,
    estimate_mix,
)
from fer_batch.satisfaction.figures import add_totals, is_published, parse_clusterings
from fer_batch.satisfaction.intervals import Floats

LABELS = (100, 200, 400, 800, 1600)
"""The numbers of audited faces that are tried for an open verdict."""


@dataclass(frozen=True, slots=True)
class GroupTotal:
    """The happy rate of all faces of several facilities together, or why there is none.

    `rate` is None if there is none; then `reason` says why, otherwise it is empty.
    """

    facilities: int
    faces: int
    rate: Rate | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GroupChange:
    """The change of the happy rate of all faces of some facilities."""

    facilities: int
    happy: Difference


def estimate_group(
    summaries: Sequence[Mapping[str, Any]], confusions: Mapping[str, Floats | None]
) -> GroupTotal:
    """The happy rate of the published ones of some summaries, one of each facility.

    A summary has `method`, `model_version`, `audit_id`, `session_rule`, `totals`, `design_effect`
    and `faces`.
    `confusions` holds the confusion matrix in the card of each model version. Facilities with and
    without an audit of their own, or of different model versions, are not comparable. If they were
    clustered by different rules, the largest design effect counts for all.
    """
    used = [row for row in summaries if is_published(row["method"])]
    facilities, faces = len(used), sum(row["faces"] for row in used)
    reason = _explain_incomparable(used)
    if reason:
        return GroupTotal(facilities, faces, None, reason)
    confusion = confusions[used[0]["model_version"]]
    (clusterings,), design_effect = _add_up([used])
    return GroupTotal(
        facilities, faces, estimate(clusterings, confusion, design_effect=design_effect).happy
    )


def compare_group(
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    confusions: Mapping[str, Floats | None],
) -> GroupChange | None:
    """The change of the happy rate of all faces of several facilities.

    Each pair holds the earlier and the later summary of one facility, with the columns that
    `estimate_group` reads. Only facilities that published both are compared, so that one without a
    figure changes nothing. None if these are fewer than two, or not comparable.
    """
    used = [pair for pair in pairs if all(is_published(row["method"]) for row in pair)]
    both = [row for pair in used for row in pair]
    if len(used) < 2 or _explain_incomparable(both):
        return None
    (earlier, later), design_effect = _add_up([list(rows) for rows in zip(*used, strict=True)])
    confusion = confusions[both[0]["model_version"]]
    change = compute_change(earlier, later, confusion, design_effect=design_effect)
    return GroupChange(len(used), change.happy)


def _explain_incomparable(used: Sequence[Mapping[str, Any]]) -> str:
    """Why some published summaries cannot be added up or compared; empty if they can."""
    if len(used) < 2:
        return "fewer than two facilities have a rate"
    if len({row["model_version"] for row in used}) > 1:
        return "not comparable: different model versions"
    is_audited = any(row["audit_id"] is not None for row in used)
    if is_audited or {row["method"] for row in used} not in ({"benchmark"}, {"raw"}):
        return "not comparable: some facilities have an audit of their own"
    return ""


def _add_up(
    periods: Sequence[Sequence[Mapping[str, Any]]],
) -> tuple[list[list[ClusterTotals]], float | None]:
    """The clusterings of each period's summaries added up, and a design effect or None.

    All periods get the same clusterings. If the summaries were clustered by different rules, these
    are only the called faces, with the largest design effect of all.
    """
    rows = [row for period in periods for row in period]
    rules = {row["session_rule"] for row in rows}
    added = [parse_clusterings(add_totals([row["totals"] for row in used])) for used in periods]
    common = set.intersection(*(set(clusterings) for clusterings in added))
    if len(rules) == 1 and "design effect" not in rules and common:
        names = [name for name in ("gap", "blocks") if name in common]
        return [[clusterings[name] for name in names] for clusterings in added], None
    counts = [np.sum([_count_called(row) for row in used], axis=0) for used in periods]
    largest = max(row["design_effect"] for row in rows)
    return [[ClusterTotals.from_counts(each)] for each in counts], largest


def compute_labels_needed(summary: Mapping[str, Any], confusion: Floats | None) -> int | None:
    """About how many audited faces of the facility would settle its open verdict.

    They are taken to be random faces that the CNN calls as its card says, at the summary's rate and
    number of faces. None if even the largest of `LABELS` would not, or without a target.
    """
    target, table = summary["target_rate"], AuditTable.from_matrices(confusion, None)
    if target is None or table is None or not summary["totals"]:
        return None
    totals = ClusterTotals.from_counts(_count_called(summary))
    mix = estimate_mix(totals.shares, table)
    rows = table.counts / np.maximum(table.counts.sum(axis=1, keepdims=True), 1e-12)

    def is_settled(labels: int) -> bool:
        happy = estimate(
            [totals], confusion, labels * mix[:, None] * rows, summary["design_effect"]
        ).happy
        # The longer half: the interval is one-sided where the rate was moved to the nearest shares.
        half = max(happy.rate - happy.low, happy.high - happy.rate)
        return bool(abs(happy.rate - target) > half)

    # The most labels first: of many open verdicts, they settle none either.
    if not is_settled(LABELS[-1]):
        return None
    return LABELS[bisect_left(LABELS[:-1], True, key=is_settled)]


def _count_called(summary: Mapping[str, Any]) -> Floats:
    """[3] the faces called happy, sad and neither; all clusterings hold the same faces."""
    return next(iter(parse_clusterings(summary["totals"]).values())).counts
