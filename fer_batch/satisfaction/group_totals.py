"""The rate of several facilities together, and how many labels would settle an open verdict.

The facilities of a group were scored by the same CNN, so they share the error of its card: adding
up their rates would count that error once for each of them, as if it averaged out. Therefore their
called faces are added up and corrected once. Only published figures are added, so that a total
reveals no suppressed one. Arithmetic only, without any input or output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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


def estimate_group(
    summaries: Sequence[Mapping[str, Any]], confusions: Mapping[str, Floats | None]
) -> GroupTotal:
    """The happy rate of the published ones of some summaries, one of each facility.

    A summary has `method`, `model_version`, `session_rule`, `totals`, `design_effect` and `faces`.
    `confusions` holds the confusion matrix in the card of each model version. Facilities with and
    without an audit of their own, or of different model versions, are not comparable. If they were
    clustered by different rules, the largest design effect counts for all.
    """
    used = [row for row in summaries if is_published(row["method"])]
    facilities, faces = len(used), sum(row["faces"] for row in used)
    if facilities < 2:
        return GroupTotal(facilities, faces, None, "fewer than two facilities have a rate")
    if len({row["model_version"] for row in used}) > 1:
        return GroupTotal(facilities, faces, None, "not comparable: different model versions")
    if {row["method"] for row in used} not in ({"benchmark"}, {"raw"}):
        return GroupTotal(
            facilities, faces, None, "not comparable: some facilities have an audit of their own"
        )
    confusion = confusions[used[0]["model_version"]]
    rules = {row["session_rule"] for row in used}
    added = parse_clusterings(add_totals([row["totals"] for row in used]))
    if len(rules) == 1 and "design effect" not in rules and added:
        ordered = [added[name] for name in ("gap", "blocks") if name in added]
        estimated = estimate(ordered, confusion)
    else:
        largest = max(row["design_effect"] for row in used)
        counts = np.sum([_count_called(row) for row in used], axis=0)
        estimated = estimate([ClusterTotals.from_counts(counts)], confusion, design_effect=largest)
    return GroupTotal(facilities, faces, estimated.happy)


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
    for labels in LABELS:
        happy = estimate(
            [totals], confusion, labels * mix[:, None] * rows, summary["design_effect"]
        ).happy
        # The longer half: the interval is one-sided where the rate was moved to the nearest shares.
        if abs(happy.rate - target) > max(happy.rate - happy.low, happy.high - happy.rate):
            return labels
    return None


def _count_called(summary: Mapping[str, Any]) -> Floats:
    """[3] the faces called happy, sad and neither; all clusterings hold the same faces."""
    return next(iter(parse_clusterings(summary["totals"]).values())).counts
